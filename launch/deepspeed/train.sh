#!/usr/bin/env bash
# Trains by DeepSpeed's launcher on the hosts of a hostfile, started once, from the first of them:
#   launch/deepspeed/train.sh [--dry-run] --hostfile FILE [option of deepspeed...] -- RECIPE [override...]
# It reaches the hosts by pdsh and ssh. Where there is no ssh, start it on every host with --no_ssh --node_rank N
# --master_addr HOST. What starts the processes has nothing to do with the strategy: --strategy.name may be any.
set -euo pipefail
ROOT=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
# shellcheck source=launch/lib.sh
. "$ROOT/launch/lib.sh"

hostfile='' dry='' options=()
while [ $# -gt 0 ]; do
  case $1 in
    --) break ;;
    --dry-run) dry=1 ;;
    --hostfile | --hostfile=*) read_value "$@"; hostfile=$VALUE; shift "$((WORDS - 1))" ;;
    *) options+=("$1") ;;
  esac
  shift
done
[ "${1:-}" = -- ] || fail "no -- before the recipe" "train.sh --hostfile FILE -- RECIPE"
shift
[ -f "$hostfile" ] || fail "--hostfile '$hostfile' is not a file" "copy launch/deepspeed/hostfile and name your hosts"
space='[[:space:]]'
bad=$(grep -Ev "^$space*(#.*)?\$|^[^[:space:]#]+$space+slots=[1-9][0-9]*$space*(#.*)?\$" "$hostfile") && fail "$hostfile: $bad" "HOST slots=DEVICES"
# Lightning counts the same number of devices on every node.
mapfile -t slots < <(sed -En "s/^[^[:space:]#]+$space+slots=([0-9]+).*/\1/p" "$hostfile")
[ ${#slots[@]} -gt 0 ] || fail "$hostfile names no host" "a line for each: HOST slots=DEVICES"
[ "$(printf '%s\n' "${slots[@]}" | sort -u | wc -l)" -eq 1 ] || fail "$hostfile: hosts differ in slots" "give all the same number"
asked=(--processes=$((${#slots[@]} * slots[0])))
for option in "${options[@]}"; do
  # What they leave of the hostfile, DeepSpeed knows.
  case $option in --include* | --exclude* | --num_nodes* | --num_gpus* | -i* | -e*) asked=() ;; esac
done
# Its ssh takes the words of paths for several.
case "${options[*]} ${#slots[@]}" in
  *--no_ssh* | *' 1') ;;
  *) [[ $ROOT$PWD != *[[:space:]]* ]] || fail "a space in $ROOT or $PWD" "use paths without, or --no_ssh on every host" ;;
esac
check_run "$@"

run=(deepspeed --hostfile "$hostfile" "${options[@]}" --no_python --no_local_rank "$ROOT/launch/rank.sh")
run+=("${asked[@]}" "$@")
if [ -n "$dry" ]; then
  printf '%q ' "${run[@]}"
  echo
  print_ranks "${#slots[@]}" "${slots[0]}" "$@"
  print_places "this terminal"
  exit
fi
PATH=$PATH:$(dirname "$FRAMEWORK")
command -v deepspeed >/dev/null || fail "there is no deepspeed" "pip install deepspeed"
listen
# shellcheck disable=SC2034
TO_RANKS=1
run_to_end "${run[@]}"
