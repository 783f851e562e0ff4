"""What a user wants to know before waiting: the model's parameters, the time that training will take, what is left."""

import logging
import time
from collections.abc import Callable

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from framework.training.display.pace import Pace, duration
from framework.training.length import total_steps
from framework.training.strategies.backend import backend_of_tensor

log = logging.getLogger(__name__)

_MEASURED_STEPS, _MEASURED_SECONDS = 2, 5.0
_SHORT_SECONDS = 60.0
"""What is over sooner needs no announcement."""


class ModelParts(Callback):
    """Says how many parameters are trained and in which parts of the model; apart from them those that are not."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            log.info("%s", describe_parts(pl_module))


def describe_parts(module: LightningModule) -> str:
    """Parameters of a module's parts in a line: `0.61M parameters in training (model); not trained: ema 0.61M`.

    The average of a model is a part of its own that is not trained: it is not counted twice.
    """
    trained: dict[str, int] = {}
    others: dict[str, int] = {}
    for name, parameter in module.named_parameters():
        counts = trained if parameter.requires_grad else others
        part = name.partition(".")[0]
        counts[part] = counts.get(part, 0) + backend_of_tensor(parameter).whole_shape(parameter).numel()
    parts = f" ({', '.join(trained)})" if len(trained) == 1 else ""
    if len(trained) > 1:
        parts = f" ({', '.join(f'{name} {_count(count)}' for name, count in trained.items())})"
    told = f"{type(module).__name__}: {_count(sum(trained.values()))} parameters in training{parts}"
    apart = ", ".join(f"{name} {_count(count)}" for name, count in others.items())
    return f"{told}; not trained: {apart}" if apart else told


def _count(number: int) -> str:
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return str(number)


class TimeNeeded(Callback):
    """Says after a few steps how long this start will train, unless that is within a minute.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self._pace: Pace | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        total = total_steps(trainer)
        known = trainer.is_global_zero and total > 0 and not trainer.fast_dev_run  # type: ignore[attr-defined]
        self._pace, self._total = Pace(clock=self.clock) if known else None, total

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        pace = self._pace
        if pace is None:
            return
        pace.finish(trainer.global_step)
        left, each = pace.seconds_left(self._total), pace.seconds_per_step
        if left is None or each is None:
            return
        if pace.num_measured >= _MEASURED_STEPS and pace.seconds_measured >= _MEASURED_SECONDS:
            if left >= _SHORT_SECONDS:
                told = "a step takes %.3g s: about %s to step %s, without validations and checkpoints"
                log.info(told, each, duration(left), f"{self._total:,}")
            self._pace = None


class TimeLimit(Callback):
    """Says what is left of `trainer.max_time`, which counts the earlier starts of a run, where there were any."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        timers = [each for each in trainer.callbacks if isinstance(each, Timer)]  # type: ignore[attr-defined]
        for timer in timers:
            left, used = timer.time_remaining(), timer.time_elapsed()
            if left is None or used < 1 or not trainer.is_global_zero:
                continue
            if left <= 0:
                told = "trainer.max_time is used up: earlier starts trained for %s; give a longer time to go on"
                log.warning(told, duration(used))
            else:
                log.info("trainer.max_time: %s are left, after %s of earlier starts", duration(left), duration(used))
