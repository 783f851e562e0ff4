"""The command `export`; its docstring is its `--help`."""

from pathlib import Path

from rich.console import Console

from framework import __version__
from framework.core.errors import CheckpointError, ConfigError
from framework.core.io import sha256_of
from framework.core.serialization import from_json
from framework.language_model.module import CHECKPOINT_KEY as LANGUAGE_MODEL
from framework.language_model.module import export_language_model
from framework.pra.checkpoint import ARCHITECTURE, OBJECTIVE, Weights
from framework.pra.export import CONFIG, ExportedModel, Origin, check_tensors
from framework.pra.loss import ObjectiveConfig
from framework.pra.network.config import PRAConfig
from framework.training.checkpoint.layout import MANIFEST, Manifest
from framework.training.checkpoint.read import find_checkpoint, read_state, read_tensors
from framework.training.weights import SUFFIX, index_of, write_weights

console = Console(stderr=True, highlight=False, soft_wrap=True)


def export(
    checkpoint: str,
    out: str,
    *,
    weights: Weights = "ema",
    max_shard_gib: float | None = None,
    overwrite: bool = False,
) -> None:
    """Write a checkpoint's weights as safetensors, with their configuration.

    Takes a checkpoint of any strategy and number of processes; needs no GPU, and memory for these weights alone.
    `framework sample` and `model.init_args.initial_weights` read what it writes: OUT, or with max_shard_gib the files
    OUT-00001-of-0000N.safetensors and OUT.safetensors.index.json, and beside them config.json.
    Of a language model, OUT is a folder that agents' models are loaded from, with the tokenizer; the other options do
    not matter then.

    Args:
        checkpoint: a checkpoint, or a run's folder for its newest one.
        out: the .safetensors file to write, in a folder of its own; of a language model the folder.
        weights: the averaged weights (ema) or the raw ones.
        max_shard_gib: split the weights into files of at most so much.
        overwrite: replace an earlier export of this name.
    """
    target, source = Path(out), find_checkpoint(checkpoint)
    state = read_state(source)
    if LANGUAGE_MODEL in state:
        if target.exists() and not overwrite:
            raise ConfigError(f"{target} exists", hint="choose another folder, or use --overwrite")
        export_language_model(source, target)
        console.print(f"language model of step {Manifest.read(source).step} in {target}")
        return
    if not target.name.endswith(SUFFIX):
        raise ConfigError(f"out {out}", hint=f"give a name that ends in {SUFFIX}")
    if max_shard_gib is not None and max_shard_gib <= 0:
        raise ConfigError(f"max_shard_gib {max_shard_gib}", hint="use a positive number")
    stale = _earlier(target, overwrite)
    if ARCHITECTURE not in state or OBJECTIVE not in state:
        raise CheckpointError(f"{source} is not of a PRA model", hint="give a checkpoint of a PRA run")
    architecture = from_json(PRAConfig, state[ARCHITECTURE], allow_missing=True)
    tensors = read_tensors(source, "ema." if weights == "ema" else "model.")
    check_tensors(architecture, {name: tensor.shape for name, tensor in tensors.items()}, f"{source} is")
    target.parent.mkdir(parents=True, exist_ok=True)
    limit = None if max_shard_gib is None else int(max_shard_gib * 2**30)
    files = write_weights(target, tensors, max_shard_bytes=limit)
    manifest = Manifest.read(source)
    ExportedModel(
        architecture=architecture,
        objective=from_json(ObjectiveConfig, state[OBJECTIVE], allow_missing=True),
        origin=Origin(
            weights=weights,
            step=manifest.step,
            manifest_sha256=sha256_of(source / MANIFEST),
            git_revision=manifest.git_revision,
            framework_version=__version__,
        ),
        entry=files[-1],
        files={file.name: sha256_of(file) for file in files},
    ).write()
    for file in stale:
        if file not in files:
            file.unlink(missing_ok=True)
    count = sum(tensor.numel() for tensor in tensors.values())
    told = files[0].name if len(files) == 1 else f"{len(files) - 1} files and {files[-1].name}"
    console.print(f"{count / 1e6:.1f}M {weights} parameters of step {manifest.step} in {target.parent}: {told}")


def _earlier(target: Path, overwrite: bool) -> list[Path]:
    """Files of an export that is there already.

    Raises:
        ConfigError: there are some and they are not to be replaced; or the folder's `config.json` is of something else.
    """
    config = target.parent / CONFIG
    present = [path for path in (target, index_of(target), config) if path.exists()]
    if not present:
        return []
    if not overwrite:
        raise ConfigError(f"{present[0]} exists", hint="choose another folder, or use --overwrite")
    if not config.exists():
        return present
    try:
        earlier = ExportedModel.read(target.parent)
    except CheckpointError as error:
        raise ConfigError(f"{config} is not of an export", hint="choose another folder") from error
    if earlier.entry.name not in (target.name, index_of(target).name):
        raise ConfigError(f"{config} is of {earlier.entry.name}", hint="one export a folder; choose another")
    return [target.parent / name for name in earlier.files]
