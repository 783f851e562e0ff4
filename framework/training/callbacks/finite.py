"""The gradient norm as a metric, and a stop before anything that is not a number reaches the weights."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor
from torch.optim import Optimizer

from framework.core.errors import ConfigError, TrainingError
from framework.tracking import metric_names as metrics
from framework.training.shapes import Scalar
from framework.training.strategies.backend import backend_of_strategy, gradient_norm

OnNonfinite = Literal["stop", "skip"]
_HINT = "the last checkpoint is unharmed; resume from it with a lower learning rate or stronger clipping"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a step came to, the same on every rank.

    Attributes:
        step: optimizer step, from 0.
        loss: mean over ranks and micro-batches.
        gradient_norm: of the whole gradient, before clipping; None where it is known only after the step.
    """

    step: int
    loss: float
    gradient_norm: float | None


class FiniteGuard(Callback):
    """Logs the gradient's norm before clipping; stops the run, or skips the step, when it or a loss is not finite.

    All ranks look at the same numbers, the norm of the whole gradient and every rank's loss, and so decide alike. They
    come to the host in one copy: a GPU waits once a step. The step is not taken: weights and checkpoints stay good.

    An engine that takes the step and the norm together (DeepSpeed's) has its losses looked at before the step and the
    norm after it, before any checkpoint; skipping is refused.

    Args:
        on_nonfinite: `stop` the run, or `skip` the step: the weights stay, schedule and data go on, and the metric
            `guards/skipped_steps` counts.
        max_skips: steps skipped in a row after which the run stops all the same.

    Raises:
        TrainingError: names the step, the value and the ranks whose loss it was.
        ConfigError: `skip` under such an engine; a `max_skips` below 1.
    """

    def __init__(self, *, on_nonfinite: OnNonfinite = "stop", max_skips: int = 10) -> None:
        if max_skips < 1:
            raise ConfigError(f"guards.max_skips {max_skips}", hint="use 1 or more")
        self.on_nonfinite, self.max_skips = on_nonfinite, max_skips
        self.skipped = self._skipped_in_a_row = 0
        self.reading: Reading | None = None
        self._loss: Scalar | None = None
        self._step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        backend = backend_of_strategy(trainer.strategy)
        if self.on_nonfinite == "skip" and not backend.sees_gradients:
            raise ConfigError(
                f"guards.on_nonfinite skip with {backend.title}, whose gradients cannot be looked at before its step",
                hint="use stop, or another strategy",
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._loss, self._step = None, trainer.global_step

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Scalar) -> None:
        # Of several micro-batches each loss is already divided by their number.
        self._loss = loss.detach() if self._loss is None else self._loss + loss.detach()

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        assert self._loss is not None
        shared = trainer.strategy.all_gather(self._loss.float().reshape(1))
        assert isinstance(shared, Tensor)
        shared = shared.flatten()
        backend = backend_of_strategy(trainer.strategy)
        if not backend.sees_gradients:
            # Called at every micro-batch.
            losses = shared.tolist()
            if not all(map(math.isfinite, losses)):
                raise TrainingError(_describe(losses, None, trainer.global_step), hint=_HINT)
            self.reading = Reading(step=trainer.global_step, loss=sum(losses) / len(losses), gradient_norm=None)
            return
        norm = gradient_norm(pl_module)
        pl_module.log(metrics.GRADIENT_NORM, norm)
        value, *losses = torch.cat([norm.to(shared).reshape(1), shared]).tolist()
        self._loss = None
        self.reading = Reading(step=trainer.global_step, loss=sum(losses) / len(losses), gradient_norm=value)
        fine = math.isfinite(value) and all(map(math.isfinite, losses))
        if fine:
            self._skipped_in_a_row = 0
        elif all(map(math.isfinite, losses)) and getattr(trainer.precision_plugin, "scaler", None) is not None:
            pass  # An overflow of half precision: the loss scaler skips this step and lowers its scale.
        elif self.on_nonfinite == "stop":
            raise TrainingError(_describe(losses, value, trainer.global_step), hint=_HINT)
        else:
            self._skip(_describe(losses, value, trainer.global_step), optimizer)
        if self.on_nonfinite == "skip":
            pl_module.log(metrics.SKIPPED_STEPS, float(self.skipped))

    def _skip(self, problem: str, optimizer: Optimizer) -> None:
        if self._skipped_in_a_row == self.max_skips:
            raise TrainingError(f"{problem}, after {self.max_skips} skipped steps in a row", hint=_HINT)
        self._skipped_in_a_row += 1
        self.skipped += 1
        # Without gradients the optimizer touches neither weights nor moments.
        optimizer.zero_grad(set_to_none=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            return
        step, self._step = self._step, trainer.global_step
        backend = backend_of_strategy(trainer.strategy)
        if backend.sees_gradients:
            return
        self._loss = None
        norm = backend.norm_after_step(trainer.strategy)
        if norm is None:
            return
        pl_module.log(metrics.GRADIENT_NORM, norm)
        if not math.isfinite(norm):
            raise TrainingError(_describe([], norm, step), hint=_HINT)

    def state_dict(self) -> dict[str, int]:
        return {"skipped": self.skipped, "in_a_row": self._skipped_in_a_row}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.skipped, self._skipped_in_a_row = state_dict["skipped"], state_dict["in_a_row"]


def _describe(losses: list[float], norm: float | None, step: int) -> str:
    """What is not finite: the losses that are not and their ranks, else the norm."""
    ranks = [rank for rank, loss in enumerate(losses) if not math.isfinite(loss)]
    if not ranks:
        return f"the gradient norm is {norm} at step {step}"
    place = f" on rank {', '.join(map(str, ranks))}" if len(losses) > 1 else ""
    return f"the loss is {losses[ranks[0]]}{place} at step {step}"
