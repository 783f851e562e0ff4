#!/usr/bin/env bash
# `docker run IMAGE fit --config ...` is `framework fit --config ...`; a program, such as launch/torchrun/train.sh or
# bash, is run as it is. enroot, pyxis and `apptainer exec` start programs without this file, and need nothing of it.
set -euo pipefail
# Started as another user than the image's: caches need a home that can be written.
if [ ! -w "${HOME:-/}" ]; then
  HOME=$(mktemp -d)
  export HOME
fi
if [ $# -gt 0 ] && command -v -- "$1" >/dev/null; then exec "$@"; fi
exec framework "$@"
