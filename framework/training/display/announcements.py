"""What a user wants to know before waiting: the model's parameters, the time needed, what the run is too short for."""

import logging
import math
import time
from collections.abc import Callable

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.display.pace import Pace, duration
from framework.training.length import total_steps
from framework.training.optimizer import OptimizerConfig, misfit_of_schedule
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


class OutOfReach(Callback):
    """Warns in a line of what a run ends too early for: its warm-up, validations, metrics, the choice of the best."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        total, config = total_steps(trainer), getattr(pl_module, "optimizer_config", None)
        found = [misfit_of_schedule(config, total)] if isinstance(config, OptimizerConfig) else []
        if total > 0:
            found += _out_of_reach(trainer, total)
        told = "; ".join(each for each in found if each is not None)
        if told and trainer.is_global_zero:
            log.warning("%s: %s", f"in a run of {total:,} steps" if total > 0 else "in this run", told)


def _out_of_reach(trainer: Trainer, total: int) -> list[str]:
    """What never comes in a run of so many optimizer steps."""
    found: list[str] = []
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    if every > total and trainer.loggers:
        found.append(f"trainer.log_every_n_steps {every} leaves no row of metrics")
    checkpoints = next((each for each in trainer.callbacks if isinstance(each, Checkpoints)), None)  # type: ignore[attr-defined]
    best = checkpoints.retention.best if checkpoints is not None else 0
    steps = _steps_between_validations(trainer)
    if steps is None:
        return found
    if steps > total:
        found.append(f"the first validation would come after {math.ceil(steps):,}")
    elif checkpoints is not None and best and steps == int(steps):
        # The end of a run is a checkpoint too.
        both = math.lcm(int(steps), checkpoints.every_n_steps)
        if both > total and total % int(steps):
            told = f"no step has both a checkpoint (every {checkpoints.every_n_steps:,}) and a validation"
            found.append(f"{told} (every {int(steps):,}), and checkpoint.keep_best {best} keeps none")
    return found


def _steps_between_validations(trainer: Trainer) -> float | None:
    """Optimizer steps from one validation to the next; None where there is none, or by the clock."""
    batches, epochs = trainer.val_check_batch, trainer.check_val_every_n_epoch
    if not trainer.enable_validation or batches is None:
        return None
    if epochs is not None and (epochs > 1 or batches == float("inf")):
        batches = epochs * trainer.num_training_batches
    # An epoch without an end has no last batch.
    return None if math.isinf(batches) else batches / trainer.accumulate_grad_batches
