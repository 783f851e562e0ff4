"""The folder of a run's checkpoints: names, manifests, what is complete, what is kept.

checkpoints/
  newest                     name of the newest complete checkpoint; for users and launchers, never trusted here
  validation.jsonl           metrics by step: what "best" is judged by, and which validations came to their end
  step=00000100/             complete: it got this name by a rename, after its bytes and its manifest were on the disk
    manifest.json            step, files with sizes and checksums, what made it
    state.pt                 loops, callbacks, data position, random states: plain types and small tensors
    .metadata, *.distcp      torch.distributed.checkpoint
    latest, checkpoint/      or DeepSpeed's own files
  step=00000200.partial/     being written, or left behind by a killed run
  step=00000050.removed/     being removed, or left behind
  step=00000150.damaged/     passed over by a resume; kept for a look, removed by hand
"""

import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from framework.core.errors import CheckpointError, ConfigError
from framework.core.io import atomic_write, sync_folder
from framework.core.serialization import from_json, parse_object, to_json
from framework.tracking.data_identity import DataIdentity
from framework.training.strategies.config import CheckpointKind

FOLDER = "checkpoints"
MANIFEST = "manifest.json"
STATE = "state.pt"
NEWEST = "newest"
VALIDATION = "validation.jsonl"
FORMAT = 1
PARTIAL, REMOVED, DAMAGED = ".partial", ".removed", ".damaged"
_NAME = re.compile(r"step=(\d{8,})")


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """What a file must be: size in bytes, SHA-256 in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a checkpoint is and what made it.

    Attributes:
        step: optimizer steps.
        kind: who wrote the tensors.
        world_size, strategy: of the run that wrote it.
        files: every other file, by its path inside the checkpoint.
        samples_consumed: training samples of the finished steps, where the data module counts them.
        recipe: the resolved recipe, YAML.
        data: what it was trained on, where the data module tells; None of before that was recorded.
        git_revision: of the framework's source, if it is a git work tree.
        packages: versions.
        wandb_id: the run in W&B.
        created: UTC, ISO 8601.
        format: version of this layout.
    """

    step: int
    kind: CheckpointKind
    world_size: int
    strategy: str
    files: dict[str, FileRecord] = field(default_factory=dict)
    samples_consumed: int | None = None
    recipe: str | None = None
    data: DataIdentity | None = None
    git_revision: str | None = None
    packages: dict[str, str] = field(default_factory=dict)
    wandb_id: str | None = None
    created: str = ""
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        """Writes `manifest.json`, flushed to the disk."""
        with atomic_write(folder / MANIFEST) as file:
            file.write(json.dumps(to_json(self), indent=1).encode())

    @staticmethod
    def read(checkpoint: Path) -> "Manifest":
        """The manifest of a checkpoint.

        Raises:
            CheckpointError: there is none, it is damaged, or it is of a newer version of the framework.
        """
        hint = "use another checkpoint of the run"
        try:
            content = parse_object((checkpoint / MANIFEST).read_bytes())
            version = content.get("format")
            if version == FORMAT:
                return from_json(Manifest, content, allow_missing=True)
        except FileNotFoundError:
            raise CheckpointError(f"{checkpoint} has no {MANIFEST}", hint=hint) from None
        except (OSError, ValueError) as error:
            problem = f"{checkpoint / MANIFEST} cannot be read ({type(error).__name__}: {error})"
            raise CheckpointError(problem, hint=hint) from error
        raise NewerFormatError(
            f"{checkpoint} has format version {version}, and this is for version {FORMAT}",
            hint="update the framework, or use another checkpoint",
        )


class NewerFormatError(CheckpointError):
    """A checkpoint of another version of the layout: whole, and not to be passed over."""


@dataclass(frozen=True, kw_only=True)
class Retention:
    """Which checkpoints stay. The newest complete one always does.

    Args:
        last: how many of the newest.
        every_n_steps: those whose step is a multiple of it stay for good.
        best: how many of the best by `metric` stay.
        metric: a validation metric, such as validation/total, judged where a checkpoint's very step was validated.
        mode: whether the smallest or the largest is best.
    """

    last: int = 2
    every_n_steps: int | None = None
    best: int = 0
    metric: str | None = None
    mode: Literal["min", "max"] = "min"

    def __post_init__(self) -> None:
        if self.last < 1 or self.best < 0 or (self.every_n_steps is not None and self.every_n_steps < 1):
            problem = (
                f"checkpoint.keep_last {self.last}, keep_every_n_steps {self.every_n_steps}, keep_best {self.best}"
            )
            raise ConfigError(problem, hint="use 1 or more")
        if bool(self.best) != bool(self.metric):
            problem = f"checkpoint.keep_best {self.best} with best_metric {self.metric}"
            raise ConfigError(problem, hint="set both, or neither")

    def superfluous(self, checkpoints: list[Path]) -> list[Path]:
        """Those of `checkpoints`, which are given oldest first, that need not stay."""
        kept = set(checkpoints[-self.last :])
        if self.every_n_steps:
            kept |= {path for path in checkpoints if step_of(path) % self.every_n_steps == 0}
        if self.best and checkpoints:
            measured = read_validation(checkpoints[-1].parent, self.metric or "")
            sign = 1 if self.mode == "min" else -1
            known = [path for path in checkpoints if step_of(path) in measured]
            # Of equals the older one.
            kept |= set(sorted(known, key=lambda path: sign * measured[step_of(path)])[: self.best])
        return [path for path in checkpoints if path not in kept]


def name_of(step: int) -> str:
    """Folder of a step's checkpoint."""
    return f"step={step:08d}"


def step_of(checkpoint: Path) -> int:
    """Optimizer step of a checkpoint, by its name."""
    match = _NAME.fullmatch(checkpoint.name)
    assert match is not None, checkpoint
    return int(match[1])


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in a folder, oldest first; what is being written or removed is not among them."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()), key=step_of)


def publish(partial: Path, target: Path) -> None:
    """Gives a finished checkpoint its name. The caller has flushed its files.

    Raises:
        CheckpointError: there is one of that name.
    """
    for folder in (path for path in partial.rglob("*") if path.is_dir()):
        sync_folder(folder)
    sync_folder(partial)
    if target.exists():
        raise CheckpointError(f"{target} exists, and no checkpoint is overwritten", hint="use another --run.dir")
    partial.rename(target)
    sync_folder(target.parent)


def point_to_newest(folder: Path) -> None:
    """Makes the pointer name the newest complete checkpoint, or go where there is none."""
    names = [path.name for path in list_checkpoints(folder)[-1:]]
    pointer = folder / NEWEST
    if not names:
        pointer.unlink(missing_ok=True)
    elif not pointer.is_file() or pointer.read_bytes() != names[0].encode():
        with atomic_write(pointer) as file:
            file.write(names[0].encode())


def remove(checkpoint: Path) -> None:
    """Removes a checkpoint so that at no moment a part of it could be taken for a checkpoint."""
    doomed = checkpoint.with_name(checkpoint.name + REMOVED)
    checkpoint.rename(doomed)
    sync_folder(checkpoint.parent)
    shutil.rmtree(doomed)


def clean(folder: Path) -> None:
    """Removes what killed saves and removals have left, and corrects the pointer. Only under the run's lock."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.is_dir() and path.suffix in (PARTIAL, REMOVED):
            shutil.rmtree(path)
        elif path.suffix == PARTIAL:
            path.unlink()
    point_to_newest(folder)


def put_aside(checkpoint: Path) -> Path:
    """Takes a damaged checkpoint out of the way of a new one of the same step; returns its new place."""
    number = 0
    while (place := checkpoint.with_name(f"{checkpoint.name}{DAMAGED}{number or ''}")).exists():
        number += 1
    checkpoint.rename(place)
    sync_folder(checkpoint.parent)
    return place


@dataclass(frozen=True, kw_only=True)
class Validation:
    """A line of `validation.jsonl`: metrics by name, measured after so many optimizer steps."""

    step: int
    metrics: dict[str, float]


def note_validation(folder: Path, step: int, metrics: dict[str, float]) -> None:
    """Adds a validation's metrics to those that retention judges by.

    Args:
        folder: of the checkpoints.
        step: optimizer steps at the validation.
        metrics: values by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / VALIDATION).open("a") as file:
        # The line break first: a killed run may have left half a line.
        file.write("\n" + json.dumps({"step": step, "metrics": metrics}))


def read_validation(folder: Path, metric: str) -> dict[int, float]:
    """A metric by step; of several validations of a step the last, what is not a number left out."""
    values: dict[int, float] = {}
    for entry in _validations(folder):
        value = entry.metrics.get(metric)
        if value is not None and math.isfinite(value):
            values[entry.step] = value
    return values


def validated_steps(folder: Path) -> set[int]:
    """Steps whose validation came to its end."""
    return {entry.step for entry in _validations(folder)}


def _validations(folder: Path) -> Iterator[Validation]:
    file = folder / VALIDATION
    for line in file.read_bytes().split(b"\n") if file.is_file() else ():
        # A killed run's last line is in pieces.
        with suppress(ValueError):
            yield from_json(Validation, parse_object(line))


def sync_files(paths: Iterable[Path]) -> None:
    """Flushes files to the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
