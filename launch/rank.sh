#!/usr/bin/env bash
# One process of a run, started by srun, torchrun or DeepSpeed's launcher: rank.sh [--processes=N] RECIPE [override...]
# N is how many were asked for.
set -euo pipefail
ROOT=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
# shellcheck source=launch/lib.sh
. "$ROOT/launch/lib.sh"

asked='' same="let every node start the same number, and all together as many as nodes times devices"
case ${1:-} in --processes=*) asked=${1#*=}; shift ;; esac
# torchrun first, as Lightning does: it may run inside a SLURM job.
if [ -n "${GROUP_WORLD_SIZE:-}" ]; then
  nodes=$GROUP_WORLD_SIZE devices=$LOCAL_WORLD_SIZE started=$WORLD_SIZE
elif [ -n "${CROSS_SIZE:-}" ]; then
  nodes=$CROSS_SIZE devices=$LOCAL_SIZE started=$WORLD_SIZE
  # Lightning's name for it.
  export NODE_RANK=$CROSS_RANK
elif [ -n "${SLURM_PROCID:-}" ]; then
  nodes=$SLURM_NNODES devices=${SLURM_NTASKS_PER_NODE:?give sbatch --ntasks-per-node}
  started=${SLURM_NTASKS:-$((nodes * devices))}
else
  fail "no launcher has started this" "use launch/slurm/submit.sh, launch/torchrun/train.sh or launch/deepspeed/train.sh"
fi

# Each of too few would take the share of samples of one among all that were asked for.
[ "$started" -eq "${asked:-$started}" ] || fail "$started process(es) were started and $asked asked for" "$same"
[ "$started" -eq $((nodes * devices)) ] || fail "$started process(es) were started on $nodes node(s) with $devices here" "$same"

find_framework
fit_command "$nodes" "$devices" "$@"

exec "$ROOT/launch/supervise.py" --deaf "${FIT[@]}"
