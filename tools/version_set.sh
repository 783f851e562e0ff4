#!/usr/bin/env bash
# version_set.sh SET FOLDER: makes the environment of a set of versions in FOLDER, for `make test-set`; 6 GB and some minutes.
# It needs the set's Python on the PATH (or PYTHON=its path) and a package index.
#   lowest        Python 3.10, the lowest versions that pyproject.toml allows, of what it names; the newest of the rest
#   torch-2.11    Python 3.12, torch 2.11 with transformers 5.17, as on a GPU machine without an index; the rest of constraints.txt
#   python-3.13   Python 3.13, the versions of constraints.txt
set -euo pipefail
name=${1:?a set: lowest, torch-2.11 or python-3.13} folder=$(realpath -m "${2:?a folder for the environment}")
cd "$(dirname "$0")/.."
case $name in
  lowest) version=3.10 ;;
  torch-2.11) version=3.12 ;;
  python-3.13) version=3.13 ;;
  *) echo "no set $name: lowest, torch-2.11 or python-3.13" >&2; exit 2 ;;
esac
"${PYTHON:-python$version}" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check uv
uv() { "$folder/bin/uv" pip "$@" --quiet --python "$folder/bin/python"; }
pins=$folder/pins.txt
case $name in
  lowest) uv compile --resolution lowest-direct --extra adapters --extra deepspeed --extra digits --extra hf --extra s3 \
    --no-header --no-annotate --output-file "$pins" pyproject.toml ;;
  torch-2.11)
    others=(torch==2.11.0 transformers==5.17.0 huggingface_hub==1.33.0 tokenizers==0.23.2 numpy==2.5.2)
    grep -vE "^($(IFS='|'; echo "${others[*]%%==*}"))==" constraints.txt > "$pins"
    printf '%s\n' "${others[@]}" >> "$pins" ;;
  python-3.13) cp constraints.txt "$pins" ;;
esac
uv install --constraint "$pins" --editable '.[dev]'
