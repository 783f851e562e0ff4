"""What every part of the GPU benchmark has: a device, its sizes, clocks, and a file that its figures go to."""

import gc
import json
import os
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

RESULTS = "results.jsonl"
"""One JSON object a line: what a part has measured, as it comes, and how the part ended."""


def append_line(folder: Path, record: dict[str, object]) -> None:
    """Adds a line to the results, whole even if the process is killed right after."""
    line = (json.dumps(record) + "\n").encode()
    descriptor = os.open(folder / RESULTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """All lines of the results so far, but for one that a full disk has cut."""
    path, found = folder / RESULTS, []
    for line in path.read_text().splitlines() if path.is_file() else []:
        with suppress(ValueError):
            found.append(json.loads(line))
    return found


@dataclass(kw_only=True)
class Session:
    """One part on its way.

    Attributes:
        part: its name.
        folder: for results and whatever the part writes.
        rehearse: tiny sizes, no kernels built by Triton and no CUDA graphs: shows that everything runs, not how fast.
        seconds: the part may take so long; what would take longer is left out.
        device: the GPU, or the CPU where there is none.
    """

    part: str
    folder: Path
    rehearse: bool
    seconds: float
    device: torch.device = field(
        default_factory=lambda: torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    )
    started: float = field(default_factory=time.monotonic)

    @property
    def on_gpu(self) -> bool:
        """Whether there is one."""
        return self.device.type == "cuda"

    @property
    def accelerator(self) -> str:
        """The trainer's word for the device."""
        return "gpu" if self.on_gpu else "cpu"

    @property
    def compile_backend(self) -> str:
        """Of `torch.compile`: a rehearsal traces as the real thing does, and builds nothing."""
        return "aot_eager" if self.rehearse or not self.on_gpu else "inductor"

    def left(self) -> float:
        """Seconds of the part's time that are left."""
        return self.seconds - (time.monotonic() - self.started)

    def note(self, name: str, **figures: object) -> None:
        """Writes what was measured under a name, and says it."""
        append_line(self.folder, {"part": self.part, "name": name, **figures})
        shown = ", ".join(f"{key} {_shown(value)}" for key, value in figures.items())
        print(f"{self.part}: {name}: {shown}", flush=True)

    def attempt(
        self, name: str, measure: Callable[[], dict[str, object] | None], *, least_seconds: float = 0.0
    ) -> bool:
        """Notes what a measurement returns; where it fails, what with, and the part goes on with the next.

        Args:
            name: of the measurement.
            measure: returns figures, or None where it notes them itself.
            least_seconds: the measurement is left out where the part has less time left; a rehearsal leaves out none.

        Returns:
            Whether it went well.
        """
        if not self.rehearse and self.left() < least_seconds:
            self.note(
                name, skipped=f"{self.left():.0f} s left of {self.seconds:.0f}, it takes about {least_seconds:.0f}"
            )
            return False
        try:
            figures = measure()
        except Exception as error:  # Whatever is wrong with one measurement, the next one may be fine.
            traceback.print_exc()
            self.note(name, error=one_line(error))
            return False
        finally:
            self.free()
        if figures is not None:
            self.note(name, **figures)
        return True

    def free(self) -> None:
        """Gives memory that nothing refers to back to the device, and starts to look for a new peak."""
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def now(self) -> float:
        """Seconds, when the device has done what it was told."""
        if self.on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    def peak_gib(self) -> float | None:
        """Most memory of tensors since `free`; None on a CPU."""
        return torch.cuda.max_memory_allocated() / 2**30 if self.on_gpu else None

    def seconds_of(self, work: Callable[[], object], *, rounds: int, warm_up: int = 1) -> float:
        """The median duration of a piece of work.

        Args:
            work: what is measured; it may leave the device busy.
            rounds: how often it is measured.
            warm_up: how often it is done before.
        """
        for _ in range(warm_up):
            work()
        durations: list[float] = []
        for _ in range(rounds):
            before = self.now()
            work()
            durations.append(self.now() - before)
        return median(durations)


def one_line(error: BaseException) -> str:
    """An exception's kind and the first line of its message."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
