"""`framework bench startup`: what `framework fit` takes to the end of its first step, beside importing its libraries.

Both run in processes of their own, in turns, and are measured by the processors' time, which other work on the machine
does not count into. Loader workers, which start beside, are left out.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.table import Table

from framework.bench.gpu.runner import processor_seconds
from framework.bench.record import check_record, machine_of, write_record
from framework.core.console import results, tracked
from framework.core.errors import ConfigError, TrainingError

FIT = "fit to the first step"
LIBRARIES = "import torch, lightning"


class EndAfterFirstStep(Callback):
    """Ends the process when the first step is done, without saving anything."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        os._exit(0)


def bench_startup(recipe: str, out: Path | None = None, *, rounds: int = 5) -> dict[str, Any]:
    """Measures the start of a training run against `import torch, lightning`.

    Args:
        recipe: of a run; its data has to be there.
        out: JSON file for the numbers.
        rounds: how often; the figures are medians, the first round of each, which reads from the disk, left out.

    Returns:
        The numbers, as in the file: seconds of the processors, by what ran, and the ratio.

    Raises:
        ConfigError: a number out of range.
        TrainingError: a process failed.
    """
    check_record(out)
    if rounds < 1:
        raise ConfigError(f"rounds {rounds}", hint="use 1 or more")
    used: dict[str, list[float]] = {FIT: [], LIBRARIES: []}
    for _ in tracked(range(rounds + 1), "startup"):
        with tempfile.TemporaryDirectory() as folder:
            ending = f"--trainer.callbacks+={__name__}.{EndAfterFirstStep.__name__}"
            fit = [
                "-m",
                "framework.cli.main",
                "fit",
                f"--config={recipe}",
                f"--run.dir={folder}/run",
                "--run.wandb=disabled",
                ending,
            ]
            used[FIT].append(_processor_seconds(fit))
        used[LIBRARIES].append(_processor_seconds(["-c", LIBRARIES]))
    medians = {name: float(np.median(each[1:])) for name, each in used.items()}
    record = {
        "recipe": recipe,
        "machine": machine_of(),
        "processor_seconds": medians,
        "ratio": medians[FIT] / medians[LIBRARIES],
    }
    table = Table("processor seconds", "median", "all", title=f"{recipe}: ratio {record['ratio']:.2f}")
    for name, median in medians.items():
        table.add_row(name, f"{median:.2f}", ", ".join(f"{each:.2f}" for each in used[name][1:]))
    results().print(table)
    write_record(out, record)
    return record


def _processor_seconds(arguments: list[str]) -> float:
    """Of Python with these arguments, which keeps its bytecode as it does by default.

    Raises:
        TrainingError: it failed.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = processor_seconds()
    done = subprocess.run([sys.executable, *arguments], check=False, capture_output=True, text=True, env=environment)
    used = processor_seconds() - before
    if done.returncode:
        last = " ".join(done.stderr.strip().splitlines()[-1:])
        raise TrainingError(f"python {' '.join(arguments)} failed ({last})", hint="see whether it runs by itself")
    return used
