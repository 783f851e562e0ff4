"""A trained PRA model out of a checkpoint, without the recipe that made it."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TypeVar, cast

from framework.core.errors import CheckpointError, ConfigError
from framework.core.serialization import from_json, to_json
from framework.pra.export import ExportedModel, is_exported, known_architecture, known_objective, load_exported
from framework.pra.loss import ObjectiveConfig
from framework.pra.network.build import build_generator
from framework.pra.network.config import PRAConfig
from framework.pra.network.generator import ImageGenerator
from framework.tracking.data_identity import DataIdentity
from framework.training.checkpoint.layout import Manifest
from framework.training.checkpoint.read import find_checkpoint, read_state, read_tensors
from framework.training.export import Weights

RecordT = TypeVar("RecordT")

ARCHITECTURE = "architecture"
OBJECTIVE = "objective"
"""Keys of the model's and the objective's configuration, as plain types, in a checkpoint."""

_DEFAULTS = {each.name: each.default for each in fields(PRAConfig) if each.default is not MISSING}


def check_architecture(saved: Mapping[str, object] | None, config: PRAConfig) -> None:
    """Compare the configuration in a checkpoint with the recipe's.

    Raises:
        CheckpointError: names every setting that differs, with both values.
    """
    if saved is None:
        raise CheckpointError("the checkpoint is not of a PRA model", hint="choose another run folder or checkpoint")
    # A checkpoint that is older than a setting was written with its default.
    known, wanted = known_architecture(saved, "the checkpoint"), to_json(config)
    saved = {**_DEFAULTS, **cast("dict[str, object]", known)}
    unlike = [
        f"{name} is {saved.get(name)!r} in the checkpoint and {wanted.get(name)!r} in the recipe"
        for name in sorted(saved.keys() | wanted.keys())
        if saved.get(name) != wanted.get(name)
    ]
    if unlike:
        raise CheckpointError(
            f"the checkpoint is of another model ({'; '.join(unlike)})",
            hint="use the checkpoint's settings, or another --run.dir for a new model",
        )


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model for sampling.

    Attributes:
        model: in evaluation mode, on the CPU.
        class_names: names of its classes, by their numbers; None where it has one class or nothing tells.
    """

    model: ImageGenerator
    class_names: tuple[str, ...] | None


def load_trained(path: str | Path, weights: Weights = "ema") -> TrainedModel:
    """Load a model for sampling, with the names of its classes.

    Args:
        path: a checkpoint or a run's folder (its newest undamaged one), or what `framework export` wrote.
        weights: the exponential moving average, or the raw weights; an export holds one kind, which is taken.

    Raises:
        CheckpointError: missing, damaged, or not of a PRA model.
    """
    if is_exported(Path(path)):
        return _with_names(load_exported(Path(path)), ExportedModel.read(Path(path)).data)
    checkpoint = find_checkpoint(path)
    architecture = architecture_in(read_state(checkpoint), path)
    try:
        model = build_generator(architecture)
        model.load_state_dict(read_tensors(checkpoint, "ema." if weights == "ema" else "model."))
    except (ValueError, ConfigError, RuntimeError) as error:
        raise _of_something_else(path) from error
    return _with_names(model, Manifest.read(checkpoint).data)


def _with_names(model: ImageGenerator, data: DataIdentity | None) -> TrainedModel:
    names = () if data is None else data.classes
    known = len(names) == model.config.num_classes > 1
    return TrainedModel(model=model.eval(), class_names=names if known else None)


def load_pra(path: str | Path, weights: Weights = "ema") -> ImageGenerator:
    """The model of `load_trained`, which says what `path` and `weights` are."""
    return load_trained(path, weights).model


def load_objective(path: str | Path) -> ObjectiveConfig:
    """The objective that a checkpoint's model was trained with; `path` as for `load_pra`."""
    if is_exported(Path(path)):
        return ExportedModel.read(Path(path)).objective
    return objective_in(read_state(find_checkpoint(path)), path)


def architecture_in(state: Mapping[str, object], source: str | Path) -> PRAConfig:
    """The architecture in a checkpoint's state.

    Args:
        state: of the checkpoint.
        source: what to call it in messages.

    Raises:
        CheckpointError: none is there, or one that this version does not know.
    """
    return _record_in(PRAConfig, known_architecture(state.get(ARCHITECTURE), source), source)


def objective_in(state: Mapping[str, object], source: str | Path) -> ObjectiveConfig:
    """The same of the objective.

    Args:
        state: of the checkpoint.
        source: what to call it in messages.

    Raises:
        CheckpointError: none is there, or one that this version does not know.
    """
    return _record_in(ObjectiveConfig, known_objective(state.get(OBJECTIVE)), source)


def _record_in(record: type[RecordT], saved: object, source: str | Path) -> RecordT:
    try:
        return from_json(record, saved, allow_missing=True)
    except (ValueError, ConfigError) as error:
        raise _of_something_else(source, error) from error


def _of_something_else(source: str | Path, reason: Exception | None = None) -> CheckpointError:
    told = "" if reason is None else f" ({reason})"
    return CheckpointError(f"{source} is not of a PRA model{told}", hint="give a checkpoint of a PRA run")
