"""The parts, and how they run: one after the other, each in a process of its own, none longer than it may."""

import os
import platform
import resource
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from framework.bench.gpu.session import append_line
from framework.bench.gpu.table import save_table

_PACKAGES = ("torch", "lightning", "transformers", "triton", "numpy", "deepspeed")
_LEAST_SECONDS = 3.0
"""A part that would get less is left out."""
_GRACE_SECONDS = 3.0
"""A part looks at its own time too; only one that hangs is ended from outside."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part, run by a process of its own.

    Attributes:
        name: in the results.
        title: what it measures.
        function: `module:function` of this package; it is given a `Session`.
        seconds: its time limit, in a benchmark of nine minutes; parts that end early leave their time to the last.
    """

    name: str
    title: str
    function: str
    seconds: float


def _part(name: str, function: str, seconds: float, title: str) -> Part:
    """A row of the table.

    Args:
        name: in the results.
        function: module and function.
        seconds: time limit.
        title: what it measures.
    """
    return Part(name=name, title=title, function=f"framework.bench.gpu.{function}", seconds=seconds)


PARTS = (
    _part("tests", "first_light:run_tests", 60, "the tests that need a GPU, those of PRA first"),
    _part("strategies", "first_light:train_strategies", 50, "a few steps under every strategy"),
    _part("agents", "agents:train_and_attribute", 40, "GBC: soft prompts, adapters, attribution"),
    _part("waits", "waits:count_waits", 25, "synchronisations of a training step; the loop against a bare one"),
    _part("step", "step:measure_steps", 110, "PRA-L's training step"),
    _part("saves", "first_light:save_twice", 25, "asynchronous saves"),
    _part("sampling", "sampling:measure_sampling", 60, "PRA-L's sampling"),
    _part("passes", "passes:measure_passes", 95, "attribution and episodes on language models"),
    _part("finegrained", "passes:measure_finegrained", 25, "peaks of `finegrained`"),
    _part("cifar", "cifar:compare_rows", 50, "CIFAR-10 at 32x32: pra and teacher_forced at equal time"),
)
"""The last one gets all the time that is left."""
NINE_MINUTES = 540.0


def named_part(name: str) -> Part:
    """The part of a name of the table."""
    return next(part for part in PARTS if part.name == name)


@dataclass(frozen=True, kw_only=True)
class Options:
    """How the benchmark runs.

    Attributes:
        minutes: for all parts together.
        folder: for the results.
        rehearse: tiny sizes.
        parts: names of the parts to run; all by default.
    """

    minutes: float
    folder: Path
    rehearse: bool
    parts: tuple[str, ...] = ()


def facts() -> dict[str, object]:
    """What the figures are of: when, by which command, on which card, with which versions."""
    found: dict[str, object] = {"date": datetime.now().astimezone().isoformat(timespec="seconds")}
    found |= {"command": shlex.join(sys.orig_argv), "card": _card(), "cpus": os.cpu_count() or 1}
    found["python"] = platform.python_version()
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _card() -> str | None:
    """Name, driver and memory of each GPU; this process has none of its memory for itself."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=_GRACE_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    return "; ".join(done.stdout.strip().splitlines())


def processor_seconds() -> float:
    """Of all children that have ended and were waited for, with theirs: imports before their turn too."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class PartProcess:
    """A part's process, started before its turn: it imports what it needs while the part before it runs.

    Args:
        part: that it runs.
        options: of the benchmark.
    """

    def __init__(self, part: Part, options: Options) -> None:
        self.part = part
        self.log = options.folder / f"{part.name}.log"
        command = [sys.executable, "-m", "framework.bench.gpu", "--part", part.name, "--out", str(options.folder)]
        if options.rehearse:
            command.append("--rehearse")
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        # What one part has compiled the next does not compile again.
        environment.setdefault("TORCHINDUCTOR_CACHE_DIR", str(options.folder.absolute() / "inductor"))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                # A group of its own, so that nothing that it has started outlives it.
                start_new_session=True,
            )

    def run(self, seconds: float) -> str:
        """Gives it its turn.

        Args:
            seconds: it may take so long.

        Returns:
            How it ended: done, failed or out of time.
        """
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # It has died on its imports.
            self.process.stdin.write(f"{seconds}\n".encode())
            self.process.stdin.close()
        try:
            code = self.process.wait(timeout=seconds + _GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return "out of time"
        finally:
            self.end()
        return "done" if code == 0 else f"failed (exit code {code})"

    def end(self) -> None:
        """Ends it and all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        # A driver may keep it in the kernel for longer.
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=_GRACE_SECONDS)
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()

    def last_words(self) -> str:
        """The last line of its output."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else ""


def run_parts(options: Options) -> None:
    """Runs the parts within the time for all of them.

    Limits are those of a benchmark of nine minutes, stretched or shortened with `minutes`; what one part leaves goes to
    the last one. In a rehearsal a part may take all that is left.
    """
    options.folder.mkdir(parents=True, exist_ok=True)
    append_line(options.folder, {"part": "benchmark", "name": "started", "rehearsal": options.rehearse, **facts()})
    end = time.monotonic() + 60 * options.minutes
    chosen = [part for part in PARTS if part.name in (options.parts or [each.name for each in PARTS])]
    following: PartProcess | None = PartProcess(chosen[0], options)
    try:
        for number, part in enumerate(chosen):
            process = following
            assert process is not None
            last = number + 1 == len(chosen)
            following = None if last else PartProcess(chosen[number + 1], options)
            remaining = end - time.monotonic() - _GRACE_SECONDS
            # A rehearsal's sizes have nothing to do with the limits, and its machine is slower.
            unlimited = last or options.rehearse
            limit = remaining if unlimited else min(remaining, part.seconds * 60 * options.minutes / NINE_MINUTES)
            started, used = time.monotonic(), processor_seconds()
            if limit < _LEAST_SECONDS:
                process.end()
                status = "left out: no time"
            else:
                print(f"{part.name}: {part.title} (at most {limit:.0f} s)", flush=True)
                status = process.run(limit)
            record: dict[str, object] = {"part": part.name, "name": "ended", "status": status}
            if status != "done":
                record["last_words"] = process.last_words()
            record["seconds"] = round(time.monotonic() - started, 1)
            record["processor_s"] = round(processor_seconds() - used, 1)
            append_line(options.folder, record)
            # As of now, in case that nobody comes to the end.
            save_table(options.folder)
            print(f"{part.name}: {status}, {record['seconds']:.0f} s", flush=True)
    finally:
        if following is not None:
            following.end()
