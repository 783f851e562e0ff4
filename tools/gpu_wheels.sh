#!/usr/bin/env bash
# gpu_wheels.sh DEST [PYTHON]: wheels for a GPU machine without an index, such as 3.12 for PYTHON (default: 3.12), in the
# tested versions: what the framework needs beside torch, lightning, torchmetrics, transformers, peft, matplotlib and
# their like. See docs/benchmarks/gpu.md.
set -euo pipefail
dest=$1 python=${2:-3.12}
constraints=$(dirname "$0")/../constraints.txt
names=('annotated[-_]types' beartype braceexpand cattrs cwevals docstring_parser importlib_resources jsonargparse
  'opentelemetry-.*' platformdirs pydantic pydantic_core simplejpeg tenacity typeshed_client 'typing[-_]inspection' wandb
  webdataset xxhash)
pattern="^($(IFS='|'; echo "${names[*]}"))=="
mkdir -p "$dest"
mapfile -t packages < <(grep -E "$pattern" "$constraints")
platforms=()
for glibc in 28 27 17; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp \
  --python-version "$python" "${platforms[@]}" --platform manylinux2014_x86_64 --dest "$dest" "${packages[@]}"
du -sh "$dest"
