"""`framework bench busy`: what becomes of training steps when other processes want the same processors.

Steps of a recipe's model are timed in processes of their own, with threads and memory as the libraries have them and as
the framework sets them (`framework.core.process`), alone and beside processes that only count. The variants take turns.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from framework.bench.record import check_record, machine_of, write_record
from framework.core.console import results, tracked
from framework.core.errors import ConfigError, TrainingError
from framework.core.text_files import read_yaml

LIBRARIES = "libraries"
OURS = "ours"
_SETTINGS = (
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "KMP_BLOCKTIME",
    "OMP_NUM_THREADS",
    "GLIBC_TUNABLES",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_MMAP_THRESHOLD_",
)
_ALLOCATOR_LEFT = {"GLIBC_TUNABLES": "glibc.malloc.perturb=0"}
"""The allocator's default, at which the framework leaves all of its settings alone."""
_COUNT = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    for _ in range(1_000_000): pass"
"""Counts until the benchmark is no longer there, however it ended."""
_TIME_STEPS = "import sys; from framework.bench.busy_machine import time_steps; time_steps(*sys.argv[1:])"
_TORCH_FIRST = "import torch; "
"""Before the framework: what the framework sets then comes too late to matter."""


def bench_busy(
    recipe: str,
    out: Path | None = None,
    *,
    beside: tuple[int, ...] = (0, 2, 4),
    spin_counts: tuple[int, ...] = (),
    seconds: float = 8.0,
    rounds: int = 3,
) -> dict[str, Any]:
    """Measures training steps of a PRA recipe beside processes that count.

    Args:
        recipe: of a PRA run; its images are noise.
        out: JSON file for the numbers.
        beside: numbers of counting processes.
        spin_counts: values of GOMP_SPINCOUNT to try besides the framework's own settings and the libraries'.
        seconds: how long each process trains, at least one step after the first.
        rounds: how often; the figures are medians.

    Returns:
        The numbers, as in the file: steps a second by variant and number of counting processes.

    Raises:
        ConfigError: a number out of range.
        TrainingError: a training process failed.
    """
    check_record(out)
    if seconds <= 0 or rounds < 1 or min(beside, default=0) < 0:
        raise ConfigError(f"seconds {seconds}, rounds {rounds}, beside {beside}", hint="use positive numbers")
    variants = {LIBRARIES: _ALLOCATOR_LEFT, OURS: None} | {
        f"GOMP_SPINCOUNT={n}": {"GOMP_SPINCOUNT": str(n)} for n in spin_counts
    }
    rates: dict[str, dict[int, list[float]]] = {name: {number: [] for number in beside} for name in variants}
    turns = [(number, name) for _ in range(rounds) for number in beside for name in variants]
    for number, name in tracked(turns, "busy"):
        rates[name][number].append(_steps_per_second(recipe, seconds, variants[name], beside=number))
    record = {
        "recipe": recipe,
        "machine": machine_of(),
        "steps_per_second": {
            name: {str(number): float(np.median(values)) for number, values in each.items()}
            for name, each in rates.items()
        },
    }
    _show(record["steps_per_second"], beside)
    write_record(out, record)
    return record


def time_steps(recipe: str, seconds: str) -> None:
    """Trains on noise for a while and prints steps a second as JSON; what each measuring process runs.

    After the first step it prints a line, and goes on when it is given one.

    Args:
        recipe: of a PRA run.
        seconds: how long, a number.
    """
    import time

    import torch

    from framework.core.random.seeding import seed_of
    from framework.pra.loss import ObjectiveConfig, draw_training_noise, training_losses
    from framework.pra.network.config import PRAConfig
    from framework.pra.network.model import PRA
    from framework.pra.noise import SampleNoise
    from framework.training.optimizer import OptimizerConfig, build_optimizer

    settings = read_yaml(recipe)
    given, size = settings["model"]["init_args"], settings["data"]["batch_size"]
    config, objective = PRAConfig(**given["architecture"]), ObjectiveConfig(**given.get("objective", {}))
    torch.manual_seed(0)
    model = PRA(config)
    optimizer = build_optimizer(model, OptimizerConfig(**given.get("optimizer", {})))
    images = torch.rand(size, config.channels, config.image_size, config.image_size) * 2 - 1
    labels = torch.randint(config.num_classes, (size,))

    def step(number: int) -> None:
        noise = SampleNoise([seed_of("busy", number, image) for image in range(size)], torch.device("cpu"))
        losses = training_losses(model, images, labels, objective, draw_training_noise(noise, config, objective))
        losses.total.backward()
        optimizer.step()
        optimizer.zero_grad()

    step(0)
    print("ready", flush=True)
    sys.stdin.readline()
    started, steps = time.perf_counter(), 0
    while steps == 0 or time.perf_counter() - started < float(seconds):
        steps += 1
        step(steps)
    print(json.dumps(steps / (time.perf_counter() - started)))


def _steps_per_second(recipe: str, seconds: float, settings: dict[str, str] | None, *, beside: int) -> float:
    """Of a process of its own.

    Args:
        recipe: of a PRA run.
        seconds: how long it trains.
        settings: these alone are set; None: the framework's.
        beside: processes that count once it is ready to train.

    Raises:
        TrainingError: the process failed.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _SETTINGS} | (settings or {})
    code = _TIME_STEPS if settings is None else _TORCH_FIRST + _TIME_STEPS
    command = [sys.executable, "-c", code, recipe, str(seconds)]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True, env=environment) as process,
    ):
        assert process.stdout is not None
        ready = process.stdout.readline()
        with _counting(beside if ready else 0):
            printed, _ = process.communicate("\n")
        errors.seek(0)
        last = " ".join(errors.read().strip().splitlines()[-1:])
    if process.returncode:
        raise TrainingError(f"the steps of {recipe} failed ({last})", hint="see whether `framework fit` runs it")
    return float(json.loads(printed))


@contextmanager
def _counting(number: int) -> Iterator[None]:
    """So many processes that use a processor each, until the end of the block."""
    counting = [subprocess.Popen([sys.executable, "-c", _COUNT]) for _ in range(number)]
    try:
        yield
    finally:
        for process in counting:
            process.kill()
            process.wait()


def _show(rates: dict[str, dict[str, float]], beside: tuple[int, ...]) -> None:
    table = Table("steps a second", *(f"beside {number}" for number in beside))
    for name, each in rates.items():
        table.add_row(name, *(f"{each[str(number)]:.3g}" for number in beside))
    results().print(table)
