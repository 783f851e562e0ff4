"""The starts of a run: when, where and how each began and ended. One line for each event in `attempts.jsonl`."""

import json
import os
import platform
import shlex
import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from framework.tracking.secrets import scrubbed_command, scrubbed_text

FILE = "attempts.jsonl"
CONTAINER = "FRAMEWORK_CONTAINER"
"""Environment variable in which a launcher names the container's image and digest; recorded, nothing more."""

Outcome = Literal["finished", "preempted", "failed"]


@dataclass(frozen=True, kw_only=True)
class Start:
    """How an attempt began.

    Attributes:
        attempt: number of the start, that of its folder `metrics/version_N`.
        step: optimizer steps that were done before.
        time: UTC, ISO 8601.
        command: as it was called, without secrets.
        host: of the first process.
        world_size: processes.
        device: the first process's accelerator, or the machine's kind of processor.
        git_revision: of the framework's source.
        packages: versions.
        python: its version.
        container: image and digest, where the launcher told.
    """

    attempt: int
    step: int
    time: str
    command: str
    host: str
    world_size: int = 1
    device: str = ""
    git_revision: str | None = None
    packages: dict[str, str] = field(default_factory=dict)
    python: str = ""
    container: str | None = None


@dataclass(frozen=True, kw_only=True)
class End:
    """How an attempt ended, if it could still tell.

    Attributes:
        attempt: which.
        outcome: `finished`, `preempted` (it saved itself and waits to go on) or `failed`.
        step: optimizer steps done.
        time: UTC, ISO 8601.
        message: of the error.
    """

    attempt: int
    outcome: Outcome
    step: int
    time: str
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A start and, unless the process still runs or was killed, its end."""

    start: Start
    end: End | None = None


def describe_start(
    *,
    attempt: int,
    step: int,
    world_size: int = 1,
    device: str = "",
    git_revision: str | None = None,
    packages: dict[str, str] | None = None,
    command: Sequence[str] | None = None,
) -> Start:
    """The start of this process; `command` is its own by default."""
    words = scrubbed_command(sys.argv if command is None else command)
    container = os.environ.get(CONTAINER)
    return Start(
        attempt=attempt,
        step=step,
        time=_now(),
        command=shlex.join([Path(words[0]).name, *words[1:]]) if words else "",
        host=socket.gethostname(),
        world_size=world_size,
        device=device or platform.machine(),
        git_revision=git_revision,
        packages=packages or {},
        python=platform.python_version(),
        container=scrubbed_text(container) if container else None,
    )


def note_start(run_dir: Path, start: Start) -> None:
    """Adds a start to the run's list."""
    _append(run_dir, {"event": "start", **asdict(start)})


def note_end(run_dir: Path, *, attempt: int, outcome: Outcome, step: int, message: str = "") -> None:
    """Adds the end of an attempt to the run's list."""
    end = End(attempt=attempt, outcome=outcome, step=step, time=_now(), message=scrubbed_text(message))
    _append(run_dir, {"event": "end", **asdict(end)})


def read_attempts(run_dir: Path) -> list[Attempt]:
    """The run's starts, oldest first; what a killed process left in pieces is passed over."""
    attempts: dict[int, Attempt] = {}
    file = run_dir / FILE
    for line in file.read_text(errors="replace").splitlines() if file.is_file() else ():
        try:
            entry = json.loads(line)
            if entry["event"] == "start":
                start = _known(Start, entry)
                attempts[start.attempt] = Attempt(start=start)
            elif entry["attempt"] in attempts:
                started = attempts[entry["attempt"]].start
                attempts[entry["attempt"]] = Attempt(start=started, end=_known(End, entry))
        except (ValueError, KeyError, TypeError):
            continue
    return [attempts[number] for number in sorted(attempts)]


def _known(record: Any, entry: dict[str, Any]) -> Any:
    names = {entry.name for entry in fields(record)}
    return record(**{name: value for name, value in entry.items() if name in names})


def _append(run_dir: Path, entry: dict[str, Any]) -> None:
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / FILE).open("a") as stream:
        # The line break first: a killed process may have left half a line.
        stream.write("\n" + json.dumps(entry))


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
