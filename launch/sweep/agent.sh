#!/usr/bin/env bash
# One run of a W&B sweep on this machine, started by `wandb agent`: agent.sh RECIPE [override...]
set -euo pipefail
ROOT=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
# The agent has made the run: its id names the folder.
folder=runs/sweep/${WANDB_RUN_ID:?started by wandb agent}
# shellcheck source=launch/lib.sh
. "$ROOT/launch/lib.sh"
devices=$(count_gpus)
exec "$ROOT/launch/torchrun/train.sh" --devices "$((devices > 0 ? devices : 1))" -- "$@" --run.dir="$folder"
