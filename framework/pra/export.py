"""A trained model as files of its own, without the rest of a checkpoint: weights and, beside them, `config.json`."""

import json
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch

from framework.core.collectives import rank_and_size
from framework.core.errors import CheckpointError, ConfigError
from framework.core.io import atomic_write, sha256_of
from framework.core.serialization import from_json, parse_object, to_json
from framework.pra.loss import ObjectiveConfig
from framework.pra.network.build import build_generator
from framework.pra.network.config import PRAConfig
from framework.pra.network.generator import ImageGenerator
from framework.pra.network.head import JUMP_PART
from framework.tracking.data_identity import DataIdentity, class_changes
from framework.training.weights import INDEX_SUFFIX, SUFFIX, WeightFiles, check_shapes, fill_model

log = logging.getLogger(__name__)
CONFIG = "config.json"
FORMAT = 1
_REMOVED = ("jump_loss",)
"""Settings of the objective that older files hold."""
_REMOVED_GUIDANCE = "head_jump_guidance"
"""A setting of the architecture that older files hold; 1 where it changed nothing."""
_HINT = "give what `framework export` wrote, with its config.json"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where exported weights come from.

    Attributes:
        weights: `ema`, the averaged ones, or `raw`.
        step: optimizer steps.
        manifest_sha256: of the checkpoint's manifest, which holds the checksums of all its files.
        git_revision: of the framework that made the checkpoint.
        framework_version: of the framework that exported it.
    """

    weights: str
    step: int
    manifest_sha256: str
    git_revision: str | None
    framework_version: str


@dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """What `config.json` says.

    Attributes:
        architecture: the model.
        objective: what it was trained for.
        origin: where it comes from.
        entry: the file of the weights, or of their index.
        files: SHA-256 of every file of weights, by its name.
        data: what it was trained on, with the names of the classes; None of a checkpoint that does not tell.
    """

    architecture: PRAConfig
    objective: ObjectiveConfig
    origin: Origin
    entry: Path
    files: dict[str, str]
    data: DataIdentity | None = None

    def write(self) -> Path:
        """Writes `config.json` beside the weights."""
        content = {**to_json(self), "entry": self.entry.name, "format": FORMAT, "model": "PRA"}
        path = self.entry.parent / CONFIG
        with atomic_write(path) as stream:
            stream.write(json.dumps(content, indent=1).encode())
        return path

    @staticmethod
    def read(path: Path) -> "ExportedModel":
        """Of a folder, or of the weights or the index in it.

        Raises:
            CheckpointError: no `config.json`, one of something else or of a newer version, or of other weights.
        """
        config = (path if path.is_dir() else path.parent) / CONFIG
        try:
            content = parse_object(config.read_bytes())
            version, model = content.pop("format"), content.pop("model")
            if version != FORMAT or model != "PRA":
                raise CheckpointError(f"{config} is of {model}, format {version}", hint="update the framework")
            content["objective"] = known_objective(content["objective"])
            content["architecture"] = known_architecture(content["architecture"], config)
            found = from_json(ExportedModel, content, allow_missing=True)
            found = replace(found, entry=config.parent / found.entry)
        except FileNotFoundError:
            raise CheckpointError(f"{config} does not exist", hint=_HINT) from None
        except (OSError, ValueError, KeyError, ConfigError) as error:
            raise CheckpointError(f"{config} is not of an exported model ({error})", hint=_HINT) from error
        if not path.is_dir() and path.name not in (found.entry.name, *found.files):
            raise CheckpointError(f"{config} is of {found.entry.name}, not of {path.name}", hint=_HINT)
        return found

    def verify(self) -> None:
        """Compare the files with their checksums.

        Raises:
            CheckpointError: missing or damaged, by name.
        """
        for name, digest in self.files.items():
            file = self.entry.parent / name
            if not file.is_file():
                raise CheckpointError(f"{file} is missing", hint="copy all files of the export")
            if sha256_of(file) != digest:
                raise CheckpointError(f"{file} does not match its checksum", hint="export it again")

    def weights(self) -> WeightFiles:
        """Where the tensors lie."""
        return WeightFiles.at(self.entry)


def known_objective(saved: object) -> object:
    """An objective out of a file, without the settings that have been removed since."""
    return _without(saved, _REMOVED)


def known_architecture(saved: object, source: object) -> object:
    """An architecture out of a file, without the setting that has been removed since.

    Args:
        saved: what the file holds.
        source: what to call it in messages.

    Raises:
        CheckpointError: that setting made another head of it.
    """
    known = _without(saved, (_REMOVED_GUIDANCE,))
    held = cast("dict[str, object]", saved if isinstance(saved, dict) else {})
    guidance = held.get(_REMOVED_GUIDANCE, 1)
    if guidance != 1:
        problem = f"{source} has a head that learned guidance ({_REMOVED_GUIDANCE} {guidance}), which has been removed"
        raise CheckpointError(problem, hint="learn jumps anew, from the weights before them (docs/recipes.md)")
    return known


def _without(saved: object, removed: Collection[str]) -> object:
    """What a file holds, without these settings; as it is where it is no object."""
    if not isinstance(saved, dict):
        return saved
    return {name: value for name, value in cast("dict[str, object]", saved).items() if name not in removed}


def is_exported(path: Path) -> bool:
    """Whether a path is meant as an export: its folder, weights or index."""
    return path.name.endswith((SUFFIX, INDEX_SUFFIX)) or (path / CONFIG).is_file()


def load_exported(path: Path) -> ImageGenerator:
    """The model of an export, verified, on the CPU.

    Raises:
        CheckpointError: missing, damaged, or of another model than its configuration.
    """
    found = ExportedModel.read(path)
    found.verify()
    weights = found.weights()
    check_tensors(found.architecture, weights.shapes(), f"{path} is")
    model = build_generator(found.architecture)
    model.load_state_dict(weights.tensors())
    return model


def check_tensors(architecture: PRAConfig, shapes: dict[str, torch.Size], subject: str) -> None:
    """Whether tensors are those of an architecture.

    Args:
        architecture: of the model that they are for.
        shapes: of the tensors, by name.
        subject: how the message begins, such as `runs/digits is`.

    Raises:
        CheckpointError: names what is missing, unknown or of another shape.
    """
    with torch.device("meta"):
        model = build_generator(architecture)
    check_shapes({name: tensor.shape for name, tensor in model.state_dict().items()}, shapes, subject)


def warn_of_other_classes(path: Path, names: Sequence[str]) -> None:
    """Says where the classes of an export are not those of the data that it will be trained on: labels shift.

    Args:
        path: what `framework export` wrote.
        names: of the data's classes, by their numbers.

    Raises:
        CheckpointError: no export there.
    """
    data = ExportedModel.read(path).data
    if data is not None and rank_and_size()[0] == 0:
        for change in class_changes(data.classes, names):
            log.warning("initial_weights %s were trained on other classes: %s", path, change)


def initialise_from_export(model: ImageGenerator, ema_model: ImageGenerator, path: Path) -> None:
    """Fills a model and its averaged copy from an export; each rank reads its own part.

    What the model's head learns of jumps and the export does not know keeps its initial weights.

    Args:
        model: what will be trained.
        ema_model: the averaged copy, which starts equal to it.
        path: what `framework export` wrote.

    Raises:
        CheckpointError: missing, damaged, or of another architecture, by name of what differs.
    """
    found = ExportedModel.read(path)
    ours, theirs = to_json(model.config), to_json(found.architecture)
    learns_jumps = model.config.head_jumps and not found.architecture.head_jumps
    unlike = [
        f"{name} is {theirs[name]!r} there and {value!r} in the recipe"
        for name, value in ours.items()
        if theirs[name] != value and not (learns_jumps and name == "head_jumps")
    ]
    if unlike:
        raise CheckpointError(
            f"initial_weights {path} are of another model ({'; '.join(unlike)})",
            hint="use its settings, or other weights",
        )
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        found.verify()
    for target in (model, ema_model):
        fill_model(target, found.weights(), new=_jump_tensors(target) if learns_jumps else ())


def _jump_tensors(model: ImageGenerator) -> list[str]:
    return [name for name in model.state_dict() if name.startswith(f"head.{JUMP_PART}.")]
