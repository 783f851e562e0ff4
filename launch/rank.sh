#!/usr/bin/env bash
# One process of a run, started by srun, torchrun or DeepSpeed's launcher: rank.sh RECIPE [override...]
set -euo pipefail
ROOT=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
# shellcheck source=launch/lib.sh
. "$ROOT/launch/lib.sh"

# torchrun first, as Lightning does: it may run inside a SLURM job.
if [ -n "${GROUP_WORLD_SIZE:-}" ]; then
  nodes=$GROUP_WORLD_SIZE devices=$LOCAL_WORLD_SIZE
elif [ -n "${CROSS_SIZE:-}" ]; then
  nodes=$CROSS_SIZE devices=$LOCAL_SIZE
  # Lightning's name for it.
  export NODE_RANK=$CROSS_RANK
elif [ -n "${SLURM_PROCID:-}" ]; then
  nodes=$SLURM_NNODES devices=${SLURM_NTASKS_PER_NODE:?give sbatch --ntasks-per-node}
else
  fail "no launcher has started this" "use launch/slurm/submit.sh, launch/torchrun/train.sh or launch/deepspeed/train.sh"
fi

find_framework
fit_command "$nodes" "$devices" "$@"

exec "$ROOT/launch/supervise.py" --deaf "${FIT[@]}"
