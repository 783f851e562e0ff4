"""Synchronisations of a training step with all callbacks, and what the loop costs over a bare one."""

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

from lightning.pytorch import Callback, LightningModule, Trainer

from framework.bench.gpu.first_light import MadeBatches, MadeData, make_trainer
from framework.bench.gpu.session import Session
from framework.bench.gpu.shapes import PRA_S, TINY, BareLoop
from framework.bench.gpu.synchronisations import counted_waits
from framework.pra.callbacks import SampleGridConfig
from framework.pra.module import PRAModule
from framework.pra.network.config import PRAConfig
from framework.training.callbacks.guards import GuardConfig, make_guards
from framework.training.callbacks.random_state import RandomState
from framework.training.callbacks.step_metrics import StepMetrics
from framework.training.callbacks.throughput import Throughput
from framework.training.display.progress import StepProgressBar
from framework.training.strategies.config import StrategyConfig


class WaitsOfSteps(Callback):
    """Notes how often the host has waited before each batch.

    Args:
        count: how often so far, by place.
    """

    def __init__(self, count: Callable[[], Counter[str]]) -> None:
        self.count = count
        self.before: list[Counter[str]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        self.before.append(self.count())

    def steps(self) -> list[Counter[str]]:
        """Waits of each step but the last, with those for the batch after it."""
        return [after - before for before, after in pairwise(self.before)]


class StepClock(Callback):
    """Notes when each batch starts, without waiting for the device."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.seconds: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        if batch_idx % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.seconds.append(self.session.now())


def train_with_callbacks(
    session: Session,
    config: PRAConfig,
    folder: Path,
    *,
    size: int,
    steps: int,
    log_every: int,
    extra: Sequence[Callback],
) -> Trainer:
    """A run with the callbacks that `framework fit` has, but for loggers and checkpoints.

    Args:
        session: of the part.
        config: the model.
        folder: for the run.
        size: images of a step.
        steps: optimizer steps.
        log_every: steps between logs.
        extra: more callbacks.
    """
    callbacks = [
        StepMetrics(),
        *make_guards(GuardConfig()),
        Throughput("image"),
        RandomState(),
        StepProgressBar(),
        *extra,
    ]
    options = {"max_steps": steps, "log_every_n_steps": log_every, "callbacks": callbacks}
    trainer = make_trainer(session, folder, StrategyConfig(), enable_progress_bar=True, **options)
    module = PRAModule(architecture=config, grid=SampleGridConfig(every_n_steps=0))
    trainer.fit(module, datamodule=MadeData(MadeBatches(config, size, steps)))
    return trainer


def count_waits(session: Session) -> None:
    """Waits between two log intervals, by place; then the loop against a bare one over the same batches."""
    config = TINY if session.rehearse else PRA_S
    session.attempt("waits between two logs", lambda: _waits(session, config))
    session.attempt("loop over bare loop", lambda: _over_bare(session, config), least_seconds=8)


def _waits(session: Session, config: PRAConfig) -> dict[str, object]:
    every = 4
    with tempfile.TemporaryDirectory() as folder, counted_waits() as count:
        noted = WaitsOfSteps(count)
        train_with_callbacks(session, config, Path(folder), size=4, steps=12, log_every=every, extra=[noted])
    # Kernels and buffers are made in the first steps.
    counted = {number: waits for number, waits in enumerate(noted.steps(), start=1) if number > every}
    between = [waits for number, waits in counted.items() if number % every]
    at_logs = [waits for number, waits in counted.items() if number % every == 0]
    return {
        "most_in_a_step": max(waits.total() for waits in between),
        "places": sorted(set().union(*between)),
        "at_a_log": max(waits.total() for waits in at_logs),
    }


def _over_bare(session: Session, config: PRAConfig) -> dict[str, object]:
    size, every, windows = (2, 2, 3) if session.rehearse else (32, 10, 4)
    with tempfile.TemporaryDirectory() as folder:
        clock = StepClock(session)
        train_with_callbacks(
            session, config, Path(folder), size=size, steps=every * windows, log_every=every, extra=[clock]
        )
    ours = median(after - before for before, after in pairwise(clock.seconds[1:])) / every
    session.free()
    loop = BareLoop(session, config)
    loader = MadeData(MadeBatches(config, size, every * windows)).train_dataloader()
    starts: list[float] = []
    for number, batch in enumerate(loader):
        if number % every == 0:
            starts.append(session.now())
        moved = batch.to(session.device)
        loop.step(moved.images, moved.labels)
    bare = median(after - before for before, after in pairwise(starts[1:])) / every
    return {"batch": size, "loop_ms": 1000 * ours, "bare_ms": 1000 * bare, "loop_over_bare": ours / bare}
