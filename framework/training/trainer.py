"""Lightning's Trainer as recipes make it."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

from jsonargparse.typing import ClosedUnitInterval
from lightning.pytorch import Trainer
from lightning.pytorch.profilers import PassThroughProfiler

BatchLimit: TypeAlias = int | ClosedUnitInterval | None  # pyright: ignore[reportInvalidTypeForm]
"""A number of batches, or a share of them: 1 is one batch, 1.0 all of them."""


class NoProfiler(PassThroughProfiler):
    """Measures nothing, as Lightning's default, which makes a generator for each hook of each callback to do so."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """A context that does nothing, the same for all."""
        return self._nothing


class RecipeTrainer(Trainer):
    """A Trainer whose limits are read as they are written, and which measures nothing unless it is asked to.

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
        if type(self.profiler) is PassThroughProfiler:
            self.profiler = NoProfiler()
