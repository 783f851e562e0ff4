#!/usr/bin/env bash
# Serves the place where the nodes of torchrun/train.sh --outside meet, on a host that trains nothing: store.sh [PORT]
set -euo pipefail
ROOT=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
# shellcheck source=launch/lib.sh
. "$ROOT/launch/lib.sh"
find_framework
port=${1:-29400}
is_number "$port" || fail "port '$port'" "give a number"
exec "$(dirname "$(realpath "$FRAMEWORK")")/python" -c '
import signal, sys, torch.distributed as dist
store = dist.TCPStore("0.0.0.0", int(sys.argv[1]), is_master=True, wait_for_workers=False)
print(f"serving on port {store.port}", flush=True)
signal.pause()' "$port"
