"""The starts of a run: when, where and how each began and ended. One line for each event in `attempts.jsonl`."""

import json
import os
import platform
import shlex
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from framework.core.serialization import from_json, parse_object, to_json
from framework.tracking.secrets import scrubbed_command, scrubbed_text

FILE = "attempts.jsonl"
CONTAINER = "FRAMEWORK_CONTAINER"
"""Environment variable in which a launcher names the container's image and digest; recorded, nothing more."""

_COUNT_KEY = "attempt"
"""Of the restart count in the file, as in those that were written before."""

Outcome = Literal["finished", "preempted", "interrupted", "failed"]


@dataclass(frozen=True, kw_only=True)
class Start:
    """How a start of a run began.

    Attributes:
        restart: restart count, 0 for the first start; that of its folder `metrics/version_N`.
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

    restart: int = field(metadata={"key": _COUNT_KEY})
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
    """How a start of a run ended, if it could still tell.

    Attributes:
        restart: restart count of the start that ended.
        outcome: `finished`, `preempted` (it saved itself and waits to go on), `interrupted` (by its user) or `failed`.
        step: optimizer steps done.
        time: UTC, ISO 8601.
        message: of the error.
    """

    restart: int = field(metadata={"key": _COUNT_KEY})
    outcome: Outcome
    step: int
    time: str
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Restart:
    """A start of a run, the first one included, and, unless the process still runs or was killed, its end."""

    start: Start
    end: End | None = None


def describe_start(
    *,
    restart: int,
    step: int,
    world_size: int = 1,
    device: str = "",
    git_revision: str | None = None,
    packages: dict[str, str] | None = None,
    command: Sequence[str] | None = None,
) -> Start:
    """The start of this process.

    Args:
        restart: restart count, 0 for the first start.
        step: optimizer steps that were done before.
        world_size: processes.
        device: the first process's accelerator; the machine's kind of processor by default.
        git_revision: of the framework's source, if it is known.
        packages: versions by name.
        command: program and arguments; this process's own by default. Secrets are removed.
    """
    words = scrubbed_command(sys.argv if command is None else command)
    container = os.environ.get(CONTAINER)
    return Start(
        restart=restart,
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
    """Adds a start to the run's list. Raises OSError."""
    _append(run_dir, {"event": "start", **to_json(start)})


def note_end(run_dir: Path, *, restart: int, outcome: Outcome, step: int, message: str = "") -> None:
    """Adds the end of a start to the run's list.

    Args:
        run_dir: the run's folder.
        restart: restart count of the start that ends.
        outcome: how it ends.
        step: optimizer steps done.
        message: of the error; secrets are removed.

    Raises:
        OSError: the file cannot be written.
    """
    end = End(restart=restart, outcome=outcome, step=step, time=_now(), message=scrubbed_text(message))
    _append(run_dir, {"event": "end", **to_json(end)})


def read_restarts(run_dir: Path) -> list[Restart]:
    """The run's starts, oldest first; what a killed process left in pieces is passed over."""
    restarts: dict[int, Restart] = {}
    file = run_dir / FILE
    for line in file.read_bytes().split(b"\n") if file.is_file() else ():
        try:
            entry = parse_object(line)
            if entry["event"] == "start":
                start = from_json(Start, entry, allow_missing=True, ignore_unknown=True)
                _check_time(start.time)
                restarts[start.restart] = Restart(start=start)
            elif (count := entry[_COUNT_KEY]) in restarts:
                end = from_json(End, entry, allow_missing=True, ignore_unknown=True)
                _check_time(end.time)
                restarts[count] = replace(restarts[count], end=end)
        except (ValueError, KeyError, TypeError):
            continue
    return [restarts[count] for count in sorted(restarts)]


def _check_time(text: str) -> None:
    """Raises ValueError for what is not a time with its zone: from others nothing can be subtracted."""
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError(f"{text} is without a zone")


def _append(run_dir: Path, entry: dict[str, object]) -> None:
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / FILE).open("a") as stream:
        # The line break first: a killed process may have left half a line.
        stream.write("\n" + json.dumps(entry))


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
