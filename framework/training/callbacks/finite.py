"""The gradient norm as a metric, and a stop before anything that is not a number reaches the weights."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from framework.errors import TrainingError
from framework.tracking import metrics


class FiniteGuard(Callback):
    """Logs the gradient's norm before clipping; stops the run when it or the loss is infinite or not a number.

    The optimizer's step of that batch is not taken, so the weights and every checkpoint stay good.

    Raises:
        TrainingError: names the step.
    """

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            _stop(trainer, f"the loss is {loss.item()}")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        pl_module.log(metrics.GRADIENT_NORM, norm)
        if not torch.isfinite(norm):
            _stop(trainer, f"the gradient norm is {norm.item()}")


def _stop(trainer: Trainer, what: str) -> None:
    raise TrainingError(
        f"{what} at step {trainer.global_step}",
        mend="the last checkpoint is unharmed; resume from it with a lower learning rate or stronger clipping",
    )
