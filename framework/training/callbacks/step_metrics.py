"""Metrics of a training step, handed to Lightning where somebody reads them."""

from collections.abc import Mapping

from lightning.pytorch import Callback, LightningModule, Trainer

from framework.core.compat.lightning_compat import (
    hook_under_way,
    log_from_hook,
    logs_this_step,
    validation_is_due,
)
from framework.training.callbacks.order import AfterOthers, put_last
from framework.training.shapes import AnyTensor


class StepMetrics(Callback):
    """Keeps the metrics of training steps, and hands them on where the loggers get them.

    Lightning's `log` takes up to half a millisecond a metric and keeps a step's value until the next one: of a step
    that is not logged nobody sees it. Handed on are those of a step that the loggers get (also one at which a callback
    has just stopped the training), that is followed by a validation, or that is an epoch's or the run's last. What
    reads `trainer.callback_metrics` in between finds those of such a step.
    """

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, AnyTensor]] = {}
        self._hand_on_last = AfterOthers(self._hand_on)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            # Others may stop the training, which makes this step one that is logged.
            put_last(trainer, self._hand_on_last)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        self._kept = {}

    def keep(self, module: LightningModule, values: Mapping[str, AnyTensor]) -> None:
        """Takes metrics of the step that is under way; at once to Lightning where it is logged, for others to read.

        Args:
            module: that trains.
            values: of each metric.
        """
        hook = hook_under_way(module)
        if hook is None or logs_this_step(module.trainer):
            module.log_dict(dict(values))
        else:
            self._kept.setdefault(hook, {}).update(values)

    def _hand_on(self, trainer: Trainer) -> None:
        kept, self._kept = self._kept, {}
        if kept and _is_read(trainer):
            for hook, values in kept.items():
                log_from_hook(trainer.lightning_module, hook, values)


def _is_read(trainer: Trainer) -> bool:
    """Whether somebody reads the metrics of the step that has just been made."""
    steps: int = trainer.max_steps
    last = trainer.is_last_batch or 0 < steps <= trainer.global_step
    # By the clock, nobody knows when a validation comes.
    return last or logs_this_step(trainer) or trainer.val_check_batch is None or validation_is_due(trainer)


def log_step(module: LightningModule, values: Mapping[str, AnyTensor]) -> None:
    """Logs metrics of a training step: by the trainer's `StepMetrics`, or at once where it has none.

    Args:
        module: that trains.
        values: of each metric.
    """
    keeper = next((each for each in module.trainer.callbacks if isinstance(each, StepMetrics)), None)  # type: ignore[attr-defined]
    if keeper is None:
        module.log_dict(dict(values))
    else:
        keeper.keep(module, values)
