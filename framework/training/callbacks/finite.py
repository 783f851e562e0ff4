"""The gradient norm as a metric, and a stop before anything that is not a number reaches the weights."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from framework.errors import TrainingError
from framework.tracking import metrics


class FiniteGuard(Callback):
    """Logs the gradient's norm before clipping; stops the run when it is infinite or not a number.

    A loss that is not a number makes such a gradient, so one look at the norm, and on a GPU one wait, is enough. The
    optimizer's step of that batch is not taken: the weights and every checkpoint stay good.

    Raises:
        TrainingError: names the step and the value.
    """

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        self._loss = loss.detach()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        pl_module.log(metrics.GRADIENT_NORM, norm)
        if not torch.isfinite(norm):
            value = ("the gradient norm", norm) if torch.isfinite(self._loss) else ("the loss", self._loss)
            raise TrainingError(
                f"{value[0]} is {value[1].item()} at step {trainer.global_step}",
                mend="the last checkpoint is unharmed; resume from it with a lower learning rate or stronger clipping",
            )
