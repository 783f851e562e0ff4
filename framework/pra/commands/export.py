"""What `framework export` writes of a PRA checkpoint: weights as safetensors and, beside them, `config.json`."""

from pathlib import Path

from framework import __version__
from framework.core.errors import CheckpointError, ConfigError
from framework.core.io import check_outputs, sha256_of
from framework.pra.checkpoint import architecture_in, objective_in
from framework.pra.export import CONFIG, ExportedModel, Origin, check_tensors
from framework.training.checkpoint.layout import MANIFEST, Manifest
from framework.training.checkpoint.read import read_state, read_tensors
from framework.training.export import ExportOptions
from framework.training.weights import SUFFIX, index_of, write_weights


def write_export(checkpoint: Path, target: Path, options: ExportOptions) -> str:
    """Writes the weights of a checkpoint and their configuration.

    Args:
        checkpoint: a verified one.
        target: the .safetensors file, in a folder of its own.
        options: which weights, in which files.

    Returns:
        What to tell the user.

    Raises:
        ConfigError: a name that is not of a .safetensors file, or files that are there and are not to be replaced.
        CheckpointError: not a PRA model, or tensors of another one.
    """
    if not target.name.endswith(SUFFIX):
        raise ConfigError(f"out {target}", hint=f"give a name that ends in {SUFFIX}")
    stale = _earlier(target, options.overwrite)
    check_outputs(target, target.parent / CONFIG)
    state, weights = read_state(checkpoint), options.weights
    architecture, objective = architecture_in(state, checkpoint), objective_in(state, checkpoint)
    tensors = read_tensors(checkpoint, "ema." if weights == "ema" else "model.")
    check_tensors(architecture, {name: tensor.shape for name, tensor in tensors.items()}, f"{checkpoint} is")
    target.parent.mkdir(parents=True, exist_ok=True)
    files = write_weights(target, tensors, max_shard_bytes=options.max_shard_bytes)
    manifest = Manifest.read(checkpoint)
    ExportedModel(
        architecture=architecture,
        objective=objective,
        origin=Origin(
            weights=weights,
            step=manifest.step,
            manifest_sha256=sha256_of(checkpoint / MANIFEST),
            git_revision=manifest.git_revision,
            framework_version=__version__,
        ),
        entry=files[-1],
        files={file.name: sha256_of(file) for file in files},
        data=manifest.data,
    ).write()
    for file in stale:
        if file not in files:
            file.unlink(missing_ok=True)
    count = sum(tensor.numel() for tensor in tensors.values())
    told = files[0].name if len(files) == 1 else f"{len(files) - 1} files and {files[-1].name}"
    return f"{count / 1e6:.1f}M {weights} parameters of step {manifest.step} in {target.parent}: {told}"


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
