#!/usr/bin/env bash
# Trains by torchrun on this node; the same command on every node, at about the same time:
#   launch/torchrun/train.sh [--dry-run] [--nodes N|MIN:MAX] [--devices D] [--master HOST[:PORT]] [--id NAME]
#       [--max-restarts R] [--outside] -- RECIPE [override...]
# --nodes       how many; or a range: nodes may leave and come back, and the run goes on from its newest checkpoint
# --devices     processes on this node; by default its GPUs
# --master      where the nodes meet; one of them
# --outside     they meet at a host that runs launch/torchrun/store.sh; then any node may be lost, not all but one
# --id          tells jobs apart that meet at the same place
# --max-restarts  of the processes of a node after a crash (3)
# The environment of Kubeflow's PyTorchJob (PET_NNODES and so on) gives the defaults.
set -euo pipefail
ROOT=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
# shellcheck source=launch/lib.sh
. "$ROOT/launch/lib.sh"

nodes=${PET_NNODES:-1} devices=${PET_NPROC_PER_NODE:-} master=${PET_RDZV_ENDPOINT:-} id=${PET_RDZV_ID:-framework}
restarts=${PET_MAX_RESTARTS:-3} outside='' dry=''
while [ $# -gt 0 ]; do
  case $1 in
    --) break ;;
    --dry-run) dry=1 ;;
    --outside) outside=1 ;;
    --nodes | --nodes=*) read_value "$@"; nodes=$VALUE; shift "$((WORDS - 1))" ;;
    --devices | --devices=*) read_value "$@"; devices=$VALUE; shift "$((WORDS - 1))" ;;
    --master | --master=*) read_value "$@"; master=$VALUE; shift "$((WORDS - 1))" ;;
    --id | --id=*) read_value "$@"; id=$VALUE; shift "$((WORDS - 1))" ;;
    --max-restarts | --max-restarts=*) read_value "$@"; restarts=$VALUE; shift "$((WORDS - 1))" ;;
    *) fail "unknown option $1" "recipe and overrides come after --" ;;
  esac
  shift
done
[ "${1:-}" = -- ] || fail "no -- before the recipe" "train.sh --nodes 2 --devices 8 --master HOST -- RECIPE"
shift

[[ $nodes =~ ^[1-9][0-9]*(:[1-9][0-9]*)?$ ]] || fail "--nodes '$nodes'" "give a number, or a range such as 1:4"
least=${nodes%:*} most=${nodes#*:}
[ "$least" -le "$most" ] || fail "--nodes $nodes" "give the smaller number first"
if [ -z "$devices" ]; then
  devices=$(count_gpus)
  [ "$devices" -gt 0 ] || fail "--devices is not set and there is no GPU" "give the number of processes"
fi
is_number "$devices" || fail "--devices '$devices'" "give the number of processes on this node"
[ "$most" -eq 1 ] || [ -n "$master" ] || fail "--master is not set" "give the host where $nodes nodes meet"
[[ $restarts =~ ^[0-9]+$ ]] || fail "--max-restarts '$restarts'" "give a number"
listen
check_run "$@"

if [ "$most" -eq 1 ]; then
  meet=localhost:0
else
  meet=$master
  [[ $meet = *:* ]] || meet=$meet:29400
fi
# c10d finds a new port for every start: with a fixed one the processes hang after a restart.
run=(torchrun --nnodes="$nodes" --nproc-per-node="$devices" --rdzv-backend=c10d --rdzv-endpoint="$meet" --rdzv-id="$id")
run+=(--max-restarts="$restarts" "--signals-to-handle=SIGTERM,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2")
[ -z "$outside" ] || run+=(--rdzv-conf=is_host=false)
run+=(--no-python "$ROOT/launch/rank.sh")
[ "$least" -ne "$most" ] || run+=("--processes=$((most * devices))")
run+=("$@")

if [ -n "$dry" ]; then
  printf 'on each node:'
  printf ' %q' "${run[@]}"
  echo
  [ "$least" -eq "$most" ] || echo "with $most nodes, the most of $nodes:"
  print_ranks "$most" "$devices" "$@"
  print_places "this terminal"
  exit
fi
# torchrun stands beside framework where that is not on the PATH.
PATH=$PATH:$(dirname "$FRAMEWORK")
command -v torchrun >/dev/null || fail "there is no torchrun" "activate the environment that has the framework"
# Without it a host that comes back fails the processes of all hosts (torch 2.13).
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
run_to_end "${run[@]}"
