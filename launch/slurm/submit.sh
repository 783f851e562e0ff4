#!/usr/bin/env bash
# Checks a run, then hands it to sbatch:
#   launch/slurm/submit.sh [--dry-run] --nodes N --devices D [sbatch option...] -- RECIPE [override...]
# --devices is the number of processes a node, each with a GPU unless --cpu is given. The job's output is
# RUN_DIR/logs/slurm-JOB.out unless --output is given.
set -euo pipefail
ROOT=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
# shellcheck source=launch/lib.sh
. "$ROOT/launch/lib.sh"

nodes='' devices='' dry='' gpus=1 output='' job=${JOB_FILE:-$ROOT/launch/slurm/train.sbatch} options=()
while [ $# -gt 0 ]; do
  case $1 in
    --) break ;;
    --dry-run) dry=1 ;;
    --cpu) gpus= ;;
    --nodes | --nodes=*) read_value "$@"; nodes=$VALUE; shift "$((WORDS - 1))" ;;
    --devices | --devices=*) read_value "$@"; devices=$VALUE; shift "$((WORDS - 1))" ;;
    --output | --output=*) read_value "$@"; output=$VALUE; shift "$((WORDS - 1))" ;;
    --ntasks | --ntasks=* | --ntasks-per-* | -n* | -N*)
      fail "$1 among the options" "--nodes and --devices say how many processes there are" ;;
    --gpus-per-task | --gpus-per-task=*)
      fail "$1 among the options" "every process has to see all GPUs of its node, which --devices asks for" ;;
    *) options+=("$1") ;;
  esac
  shift
done
[ "${1:-}" = -- ] || fail "no -- before the recipe" "submit.sh --nodes 2 --devices 8 [sbatch option...] -- RECIPE"
shift
is_number "$nodes" || fail "--nodes '$nodes'" "give the number of nodes"
is_number "$devices" || fail "--devices '$devices'" "give the number of devices a node"
check_run "$@"
options+=(--nodes="$nodes" --ntasks-per-node="$devices" ${gpus:+--gpus-per-node="$devices"})
options+=(--output="${output:=$RUN_DIR/logs/slurm-%j.out}")

if [ -n "$dry" ]; then
  printf 'sbatch'
  printf ' %q' "${options[@]}" "$job" "$@"
  echo
  print_ranks "$nodes" "$devices" "$@"
  print_places "$output"
  exit
fi
command -v sbatch >/dev/null || fail "there is no sbatch" "submit from a login node of the SLURM cluster"
mkdir -p "$(dirname "$output")"
sbatch "${options[@]}" "$job" "$@"
print_places "$output"
