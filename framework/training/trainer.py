"""Lightning's Trainer as recipes make it."""

from typing import Any, TypeAlias

from jsonargparse.typing import ClosedUnitInterval
from lightning.pytorch import Trainer

BatchLimit: TypeAlias = int | ClosedUnitInterval | None  # pyright: ignore[reportInvalidTypeForm]
"""A number of batches, or a share of them: 1 is one batch, 1.0 all of them."""


class RecipeTrainer(Trainer):
    """A Trainer whose limits are read as they are written, and whose `min_steps` alone are no epoch besides.

    Of Lightning's own annotation, `Optional[Union[int, float]]`, Python keeps one object for either order of the two
    types, that of whoever named it first in the process; where this was `float`, 1 is read as 1.0, a batch as all.
    The arguments are those of the class that it extends.
    """

    def __init__(
        self,
        *,
        limit_train_batches: BatchLimit = None,
        limit_val_batches: BatchLimit = None,
        min_epochs: int | None = None,
        min_steps: int | None = None,
        **kwargs: Any,
    ) -> None:
        # Where only steps are given, Lightning would ask for a whole epoch too.
        min_epochs = 0 if min_epochs is None and min_steps is not None else min_epochs
        limits = {"limit_train_batches": limit_train_batches, "limit_val_batches": limit_val_batches}
        super().__init__(min_epochs=min_epochs, min_steps=min_steps, **limits, **kwargs)
