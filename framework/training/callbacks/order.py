"""The one place where callbacks are put in another order: behind all others."""

from collections.abc import Callable

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT


def put_last(trainer: Trainer, callback: Callback) -> None:
    """Calls a callback after all that the trainer has now, checkpoints' too; called in a `setup`, in its order."""
    others = [each for each in trainer.callbacks if each is not callback]  # type: ignore[attr-defined]
    trainer.callbacks = [*others, callback]  # type: ignore[attr-defined]


class AfterOthers(Callback):
    """Does something after every other callback, at the end of a batch or when training starts; see `put_last`.

    Args:
        action: what is done at the end of a batch.
        at_start: what is done when training starts.
    """

    def __init__(
        self, action: Callable[[Trainer], None] | None = None, *, at_start: Callable[[Trainer], None] | None = None
    ) -> None:
        self.action, self.at_start = action, at_start

    @property
    def state_key(self) -> str:
        """For profiles: whose action it is."""
        return type(getattr(self.action or self.at_start, "__self__", self)).__name__

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.at_start is not None:
            self.at_start(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        if self.action is not None:
            self.action(trainer)
