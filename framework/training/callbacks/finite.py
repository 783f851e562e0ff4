"""The gradient norm as a metric, and a stop before anything that is not a number reaches the weights."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from torch.optim import Optimizer

from framework.core.compat.lightning_compat import logs_this_step
from framework.core.errors import ConfigError, TrainingError
from framework.tracking import metric_names as metrics
from framework.training.callbacks.step_metrics import log_step
from framework.training.optimizer import ClippingModule, skips_by_flag, steps_itself
from framework.training.shapes import AnyTensor, Scalar
from framework.training.strategies.backend import backend_of_strategy, gradient_norm

OnNonfinite = Literal["stop", "skip"]
_MOST_UNREAD = 1000
"""Steps whose numbers may wait on the device, where metrics are logged more seldom."""
_HINT = "the last checkpoint is unharmed; resume from it with a lower learning rate or stronger clipping"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a step came to, the same on every rank.

    Attributes:
        step: optimizer step, from 0.
        losses: of every rank, each a mean over its micro-batches.
        gradient_norm: of the whole gradient, before clipping; None where it is known only after the step.
        overflow: an infinite norm is the loss scaler's affair, which skips the step and lowers its scale.
    """

    step: int
    losses: tuple[float, ...]
    gradient_norm: float | None
    overflow: bool = False

    @property
    def loss(self) -> float:
        """Mean over the ranks."""
        return sum(self.losses) / len(self.losses)

    @property
    def problem(self) -> str | None:
        """What is not finite: the losses that are not and their ranks, else the norm; None where all is well."""
        if not all(map(math.isfinite, self.losses)):
            return _describe(self.losses, self.step)
        if self.gradient_norm is None or math.isfinite(self.gradient_norm) or self.overflow:
            return None
        return f"the gradient norm is {self.gradient_norm} at step {self.step}"


class FiniteGuard(Callback):
    """Logs the gradient's norm before clipping; stops the run, or skips the step, when it or a loss is not finite.

    All ranks look at the same numbers, the norm of the whole gradient and every rank's loss, and so decide alike. The
    step is not taken: weights and checkpoints stay good.

    On a GPU nothing waits for these numbers: the optimizer is told on the device not to step, from there on where the
    run is to stop, and the host reads what came of the steps in one copy, when metrics are logged, before a checkpoint
    and at the end. Elsewhere, and for optimizers that cannot be told so, it reads them before every step.

    An engine that takes the step and the norm together (DeepSpeed's) has its losses looked at before the step and the
    norm after it, before any checkpoint; skipping is refused.

    Args:
        on_nonfinite: `stop` the run, or `skip` the step: the weights stay, schedule and data go on, and the metric
            `guards/skipped_steps` counts.
        max_skips: steps skipped in a row after which the run stops all the same.

    Attributes:
        listeners: are told of every step, in order, when it is read.

    Raises:
        TrainingError: names the step, the value and the ranks whose loss it was.
        ConfigError: `skip` under such an engine; a `max_skips` below 1.
    """

    def __init__(self, *, on_nonfinite: OnNonfinite = "stop", max_skips: int = 10) -> None:
        if max_skips < 1:
            raise ConfigError(f"guards.max_skips {max_skips}", hint="use 1 or more")
        self.on_nonfinite, self.max_skips = on_nonfinite, max_skips
        self.skipped = self._skipped_in_a_row = 0
        self.listeners: list[Callable[[Reading], None]] = []
        self._loss: Scalar | None = None
        self._step = 0
        self._unread: list[tuple[int, AnyTensor]] = []
        self._bad: Scalar | None = None
        self._before_engine: Reading | None = None
        self._parameters: list[nn.Parameter] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        backend = backend_of_strategy(trainer.strategy)
        if self.on_nonfinite == "skip" and not backend.sees_gradients:
            raise ConfigError(
                f"guards.on_nonfinite skip with {backend.title}, whose gradients cannot be looked at before its step",
                hint="use stop, or another strategy",
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._loss, self._step = None, trainer.global_step
        self._unread, self._bad = [], None
        # To walk through all modules takes a tenth of a millisecond and more. Frozen ones too, which may be thawed.
        self._parameters = list(pl_module.parameters())

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Scalar) -> None:
        # Of several micro-batches each loss is already divided by their number.
        self._loss = loss.detach() if self._loss is None else self._loss + loss.detach()

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        assert self._loss is not None
        shared = trainer.strategy.all_gather(self._loss.float().reshape(1))
        assert isinstance(shared, Tensor)
        shared = shared.flatten()
        if not backend_of_strategy(trainer.strategy).sees_gradients:
            # Called at every micro-batch.
            self._before_engine = Reading(step=trainer.global_step, losses=tuple(shared.tolist()), gradient_norm=None)
            if self._before_engine.problem is not None:
                raise TrainingError(self._before_engine.problem, hint=_HINT)
            return
        norm = gradient_norm(self._parameters)
        if isinstance(pl_module, ClippingModule):
            pl_module.step_norm = norm
        log_step(pl_module, {metrics.GRADIENT_NORM: norm})
        self._loss = None
        values = torch.cat([norm.to(shared).reshape(1), shared])
        if _is_waited_for(values.device) and steps_itself(trainer) and skips_by_flag(optimizer):
            self._flag(trainer.global_step, values, optimizer)
            return
        found, *losses = values.tolist()
        overflow = getattr(trainer.precision_plugin, "scaler", None) is not None
        reading = Reading(step=trainer.global_step, losses=tuple(losses), gradient_norm=found, overflow=overflow)
        if self._take(reading):
            # Without gradients the optimizer touches neither weights nor moments.
            optimizer.zero_grad(set_to_none=True)
        self._log_skips(pl_module)

    def _flag(self, step: int, values: AnyTensor, optimizer: Optimizer) -> None:
        """Lets the device decide about a step that the host reads of later.

        Args:
            step: that is about to be taken.
            values: the norm and all losses.
            optimizer: one that `skips_by_flag`.
        """
        bad = (~values.isfinite()).any().float()
        if self.on_nonfinite == "stop" and self._bad is not None:
            # What is to stop does not go on before the host knows.
            bad = torch.maximum(bad, self._bad)
        self._bad = bad
        optimizer.found_inf = bad  # type: ignore[attr-defined] - the loss scaler sets it so
        self._unread.append((step, values))

    def read(self) -> None:
        """Waits for the device, and looks at the steps since the last time.

        Raises:
            TrainingError: one of them was not finite, and the run is to stop.
        """
        if not self._unread:
            return
        unread, self._unread = self._unread, []
        rows = torch.stack([values for _, values in unread]).tolist()
        for (step, _), (norm, *losses) in zip(unread, rows, strict=True):
            self._take(Reading(step=step, losses=tuple(losses), gradient_norm=norm))

    def _take(self, reading: Reading) -> bool:
        """Looks at a step, tells the listeners, and returns whether it is skipped."""
        problem = reading.problem
        if problem is not None and self.on_nonfinite == "stop":
            raise TrainingError(problem, hint=_HINT)
        if problem is None:
            self._skipped_in_a_row = 0
        elif self._skipped_in_a_row == self.max_skips:
            raise TrainingError(f"{problem}, after {self.max_skips} skipped steps in a row", hint=_HINT)
        else:
            self._skipped_in_a_row += 1
            self.skipped += 1
        for listener in self.listeners:
            listener(reading)
        return problem is not None

    def _log_skips(self, pl_module: LightningModule) -> None:
        if self.on_nonfinite == "skip":
            # On the host: a copy to the device would be waited for.
            log_step(pl_module, {metrics.SKIPPED_STEPS: torch.tensor(float(self.skipped))})

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            return
        step, self._step = self._step, trainer.global_step
        if self._unread and (logs_this_step(trainer) or len(self._unread) >= _MOST_UNREAD):
            self.read()
            self._log_skips(pl_module)
        backend = backend_of_strategy(trainer.strategy)
        if backend.sees_gradients:
            return
        self._loss = None
        if self._before_engine is not None:
            self._take(self._before_engine)
        norm = backend.norm_after_step(trainer.strategy)
        if norm is None:
            return
        log_step(pl_module, {metrics.GRADIENT_NORM: torch.tensor(norm)})
        if not math.isfinite(norm):
            raise TrainingError(f"the gradient norm is {norm} at step {step}", hint=_HINT)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.read()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.read()

    def state_dict(self) -> dict[str, int]:
        # Asked for by whoever saves a checkpoint, which is not to have steps that nobody has looked at.
        self.read()
        return {"skipped": self.skipped, "in_a_row": self._skipped_in_a_row}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.skipped, self._skipped_in_a_row = state_dict["skipped"], state_dict["in_a_row"]


def _is_waited_for(device: torch.device) -> bool:
    """Whether reading a number of the device costs time; on the CPU it is there when the operation returns."""
    return device.type != "cpu"


def _describe(losses: Sequence[float], step: int) -> str:
    """The first loss that is not finite, and the ranks that have such."""
    ranks = [rank for rank, loss in enumerate(losses) if not math.isfinite(loss)]
    place = f" on rank {', '.join(map(str, ranks))}" if len(losses) > 1 else ""
    return f"the loss is {losses[ranks[0]]}{place} at step {step}"
