#!/usr/bin/env bash
# Hosts made of namespaces (network, name, mounts, processes) on a network of their own; needs root and iproute2.
#   hosts.sh FOLDER up NAME...     starts them; they see this machine's files
#   hosts.sh FOLDER kill NAME      a crash: everything on the host is gone at once
#   hosts.sh FOLDER start NAME     a host comes (back)
#   hosts.sh FOLDER down
#   FOLDER/on NAME COMMAND...      runs a command on a host
set -euo pipefail
folder=$(realpath -m "$1") action=$2
shift 2

address() { sed -n "s/ $1\$//p" "$folder/hosts"; }

# The first process of a host: it reaps what is left to it, and with it the host ends.
spawn() { # name
  # shellcheck disable=SC2016
  unshare --net --uts --mount --pid --fork --mount-proc bash -c '
    hostname "$1"
    mount --bind "$2/hosts" /etc/hosts
    mount -t tmpfs tmpfs /dev/shm
    ip link set lo up
    touch "$2/$1.up"
    while :; do sleep 1000 & wait $!; done' host "$1" "$folder" <&- >"$folder/$1.log" 2>&1 &
  local outer=$!
  for ((tries = 0; tries < 100; tries++)); do
    [ -e "$folder/$1.up" ] && break
    sleep 0.05
  done
  rm "$folder/$1.up"
  tr -d ' ' <"/proc/$outer/task/$outer/children" >"$folder/$1.pid"
}

connect() { # name
  local number network
  number=$(address "$1")
  number=${number##*.}
  network=$(cat "$folder/switch.pid")
  nsenter -t "$network" -n ip link del "v$number" 2>/dev/null || true
  nsenter -t "$network" -n ip link add "v$number" type veth peer name eth0 netns "$(cat "$folder/$1.pid")"
  nsenter -t "$network" -n ip link set "v$number" master bridge0 up
  "$folder/on" "$1" ip addr add "$(address "$1")/24" dev eth0
  "$folder/on" "$1" ip link set eth0 up
}

case $action in
  up)
    mkdir -p "$folder"
    { echo "127.0.0.1 localhost"; number=11; for name; do echo "10.88.0.$((number++)) $name"; done; } >"$folder/hosts"
    cat >"$folder/on" <<EOF
#!/bin/sh
host=\$1
shift
exec nsenter -t "\$(cat "$folder/\$host.pid")" -n -u -m -p sh -c 'cd "\$0" && exec "\$@"' "\$PWD" "\$@"
EOF
    chmod +x "$folder/on"
    spawn switch
    nsenter -t "$(cat "$folder/switch.pid")" -n ip link add bridge0 type bridge
    nsenter -t "$(cat "$folder/switch.pid")" -n ip link set bridge0 up
    for name; do spawn "$name"; connect "$name"; done ;;
  start) spawn "$1"; connect "$1" ;;
  kill) kill -9 "$(cat "$folder/$1.pid")" ;;
  down) for file in "$folder"/*.pid; do kill -9 "$(cat "$file")" 2>/dev/null || true; done ;;
  *) echo "unknown action $action" >&2; exit 2 ;;
esac
