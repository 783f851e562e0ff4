"""The runs in a folder: what state they are in, where they stand, and W&B's files that are still to be sent."""

import fcntl
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from framework.core.errors import ConfigError
from framework.core.method import Method, method_of
from framework.core.moved.import_paths import current_text
from framework.core.text_files import parse_yaml
from framework.tracking.metric_files import last_values
from framework.tracking.restarts import FILE, Restart, read_restarts
from framework.tracking.run_folder import METRICS, PREEMPTED, RECIPE, UNSENT, saved_wandb_id
from framework.tracking.wandb_compat import data_files, is_offline, is_synced
from framework.training.checkpoint.layout import FOLDER, list_checkpoints, step_of

State = Literal["running", "finished", "preempted", "interrupted", "failed", "unknown"]
_DEPTH = 4


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as its folder shows it.

    Attributes:
        folder: of the run.
        state: `running` by the lock, `preempted` by the marker, else as its last start ended; `failed` too where that
            could not tell any more; `unknown` for a run that noted no start.
        reason: of a state that needs one.
        step: optimizer steps done, as far as anything tells.
        max_steps: where the recipe ends, if it says so.
        model: class path of the LightningModule in the recipe, as it is now.
        checkpoints: steps of the complete ones.
        restarts: every start, the first one included.
        wandb_id: in W&B.
        unsent: W&B files that are still to be sent.
        last: the last value of each metric.
    """

    folder: Path
    state: State
    reason: str
    step: int
    max_steps: int | None
    model: str | None
    checkpoints: list[int]
    restarts: list[Restart]
    wandb_id: str | None
    unsent: list[Path]
    last: dict[str, float]


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    return any((folder / name).exists() for name in (FILE, RECIPE, METRICS))


def find_runs(root: Path) -> list[Path]:
    """Folders of runs at or below a folder, in the order of their names.

    Raises:
        ConfigError: no such folder.
    """
    if not root.is_dir():
        raise ConfigError(f"no folder {root}", hint="give the folder that holds the runs")
    return sorted(_search(root, _DEPTH))


def _search(folder: Path, depth: int) -> Iterator[Path]:
    if is_run(folder):
        yield folder
    elif depth:
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                yield from _search(Path(entry.path), depth - 1)


def read_run(folder: str | Path) -> Run:
    """What a run's folder tells. Not for the process that trains in it: looking at the lock would release it.

    Raises:
        ConfigError: not the folder of a run.
    """
    folder = Path(folder)
    if not is_run(folder):
        raise ConfigError(f"{folder} is not the folder of a run", hint="give one, see: framework runs ls")
    restarts = read_restarts(folder)
    logged, last = last_values(folder)
    checkpoints = [step_of(path) for path in list_checkpoints(folder / FOLDER)]
    state, reason = _state(folder, restarts)
    ends = [restart.end.step for restart in restarts[-1:] if restart.end]
    recipe = _recipe(folder)
    model, trainer = (each if isinstance(each := recipe.get(name), dict) else {} for name in ("model", "trainer"))
    max_steps, class_path = trainer.get("max_steps"), model.get("class_path")
    return Run(
        folder=folder,
        state=state,
        reason=reason,
        step=max([0 if logged is None else logged + 1, *ends] if state == "running" or not ends else ends),
        max_steps=max_steps if type(max_steps) is int and max_steps > 0 else None,
        model=class_path if isinstance(class_path, str) else None,
        checkpoints=checkpoints,
        restarts=restarts,
        wandb_id=saved_wandb_id(folder),
        unsent=unsent_files(folder, running=state == "running"),
        last=last,
    )


def _recipe(folder: Path) -> dict[str, Any]:
    file = folder / RECIPE
    try:
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        content = parse_yaml(current_text(text), str(file))
    except ConfigError:
        return {}
    return content if isinstance(content, dict) else {}


def _state(folder: Path, restarts: list[Restart]) -> tuple[State, str]:
    if holder := lock_holder(folder):
        return "running", holder
    if (folder / PREEMPTED).is_file():
        return "preempted", "waits to be started again"
    if not restarts:
        return "unknown", "no start was noted"
    end = restarts[-1].end
    if end is None:
        return "failed", "ended without a message, as a killed process does"
    return end.outcome, end.message


def lock_holder(folder: Path) -> str | None:
    """Who trains in a folder, if anybody does; asks for the lock without taking it."""
    file = folder / "lock"
    try:
        with file.open("rb") as stream:
            # type, whence, start, length, process: struct flock of Linux on 64 bits.
            asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, *_ = struct.unpack("hhqqi4x", fcntl.fcntl(stream, fcntl.F_GETLK, asked))
            return None if kind == fcntl.F_UNLCK else stream.read().decode(errors="replace").strip() or "a process"
    except OSError:
        return None


def unsent_files(folder: Path, *, running: bool = False) -> list[Path]:
    """W&B files of offline starts, and of online ones that did not get through, that were not sent yet, oldest first.

    Of a run in progress the newest is left out: it would count as sent, and the rest of it never be.
    """
    files = data_files(folder)
    if running:
        files = files[:-1]
    return [
        path
        for path in files
        if not is_synced(path) and (is_offline(path) or path.with_name(path.name + UNSENT).exists())
    ]


def headline(run: Run, methods: Sequence[Method]) -> Method | None:
    """The method whose loss and unit stand for a run: that of its recipe, else the first whose loss it has logged."""
    method = method_of(run.model, methods)
    return method or next((each for each in methods if each.loss in run.last), None)
