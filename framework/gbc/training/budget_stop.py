"""Training ends before its last step: where a bound of the budget is met, or nothing is left to do."""

import logging

from lightning.pytorch import Callback, Trainer

from framework.gbc.execution.budget import Budget

log = logging.getLogger(__name__)


class BudgetStop(Callback):
    """Ends training where a bound is met, at its start and after every optimizer step, as if the last step was made.

    Args:
        budget: what all processes have spent together.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: object) -> None:
        self._step = trainer.global_step
        self._check(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: object, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if trainer.global_step != self._step:
            self._step = trainer.global_step
            self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        reason = self.budget.exceeded()
        if reason is not None:
            end_training(trainer, reason)


def end_training(trainer: Trainer, reason: str) -> None:
    """Lets the step that is being made be the last one.

    Args:
        trainer: whose training ends.
        reason: for the log.
    """
    if not trainer.should_stop:
        log.info("training ends: %s", reason)
        trainer.should_stop = True
