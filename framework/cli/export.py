"""The command `export`; its docstring is its `--help`."""

from pathlib import Path

from framework.cli.registry import methods
from framework.core.console import console, working
from framework.core.errors import CheckpointError
from framework.core.imports import import_object
from framework.training.checkpoint.read import find_checkpoint, read_state
from framework.training.export import ExportOptions, Weights


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
    Of a language model, OUT is a folder that agents' models are loaded from, with the tokenizer; weights and
    max_shard_gib do not matter then.

    Args:
        checkpoint: a checkpoint, or a run's folder for its newest one.
        out: the .safetensors file to write, in a folder of its own; of a language model the folder.
        weights: the averaged weights (ema) or the raw ones.
        max_shard_gib: split the weights into files of at most so much.
        overwrite: replace an earlier export of this name.
    """
    options = ExportOptions(weights=weights, max_shard_gib=max_shard_gib, overwrite=overwrite)
    source = find_checkpoint(checkpoint)
    state, known = read_state(source), methods()
    for method in known:
        for kind in method.exports:
            if kind.key in state:
                with working(f"exporting {source}"):
                    told = import_object(kind.function)(source, Path(out), options)
                console.print(told)
                return
    names = ", ".join(method.name for method in known if method.exports)
    raise CheckpointError(f"{source} holds nothing that can be exported", hint=f"give a checkpoint of: {names}")
