"""The one place where callbacks are put in another order: behind all others."""

from collections.abc import Callable

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT


def put_last(trainer: Trainer, callback: Callback) -> None:
    """Calls a callback after all that the trainer has now, checkpoints' too; called in a `setup`, in its order."""
    others = [each for each in trainer.callbacks if each is not callback]  # type: ignore[attr-defined]
    trainer.callbacks = [*others, callback]  # type: ignore[attr-defined]


class AfterOthers(Callback):
    """Does something at the end of a batch when every other callback is done with it; see `put_last`.

    Args:
        action: what is done.
    """

    def __init__(self, action: Callable[[Trainer], None]) -> None:
        self.action = action

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        self.action(trainer)
