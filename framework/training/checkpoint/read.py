"""Reading checkpoints without a trainer: one process, no GPU, only the tensors asked for."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from framework.core.console import working
from framework.core.errors import CheckpointError
from framework.training.checkpoint.choose import choose_checkpoint
from framework.training.checkpoint.layout import STATE, Manifest
from framework.training.shapes import NamedTensors
from framework.training.strategies.config import CHECKPOINT_READERS, CheckpointKind


def find_checkpoint(path: str | Path) -> Path:
    """A verified checkpoint, given itself or a run's folder (then its newest undamaged one).

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    found = choose_checkpoint(Path(path)).path
    assert found is not None
    return found


def read_tensors(checkpoint: Path, prefix: str) -> NamedTensors:
    """Tensors whose names start with `prefix`, on the CPU, under their names without it.

    Memory is taken for these alone: `read_tensors(path, "ema.")` of a checkpoint with optimizer state takes as much as
    one copy of the weights.

    Args:
        checkpoint: from `find_checkpoint`, of any strategy and number of processes.
        prefix: such as `model.` or `ema.`.

    Raises:
        CheckpointError: not a checkpoint.
    """
    manifest = Manifest.read(checkpoint)
    try:
        with working(f"reading {checkpoint}"):
            tensors = _reader(manifest.kind)(checkpoint, prefix)
    except CheckpointError:
        raise
    except Exception as error:  # Readers raise whatever damage makes them fail.
        problem = f"{checkpoint} cannot be read ({str(error).partition(chr(10))[0] or type(error).__name__})"
        raise CheckpointError(problem, hint="use another checkpoint of the run") from error
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _reader(kind: CheckpointKind) -> Callable[[Path, str], NamedTensors]:
    module, _, name = CHECKPOINT_READERS[kind].partition(":")
    return getattr(import_module(module), name)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Everything but tensors of the model and the optimizer: loops, callbacks, configuration; plain types.

    Args:
        checkpoint: from `find_checkpoint`.

    Raises:
        CheckpointError: not a checkpoint, or its state asks for code to be run.
    """
    try:
        state = torch.load(checkpoint / STATE, map_location="cpu", weights_only=True)
    except Exception as error:
        problem = f"{checkpoint / STATE} cannot be read ({str(error).partition(chr(10))[0] or type(error).__name__})"
        raise CheckpointError(problem, hint="give a checkpoint that `fit` made") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{checkpoint / STATE} holds no state", hint="give a checkpoint that `fit` made")
    return state
