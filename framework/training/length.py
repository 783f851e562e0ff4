"""How long a run is, in optimizer steps."""

import math

from lightning.pytorch import Trainer


def total_steps(trainer: Trainer) -> int:
    """Optimizer steps of a whole run: `max_steps` or those of `max_epochs`, whichever come first; -1 without an end.

    The trainer's own estimate makes the loaders, which a run that goes on may do only when its counters are restored;
    so the data are asked for the steps of an epoch, if they can tell (`steps_per_epoch`).
    """
    bounds = [trainer.max_steps] if trainer.max_steps >= 0 else []
    epochs = trainer.max_epochs
    if epochs is not None and epochs >= 0:
        per_epoch = getattr(getattr(trainer, "datamodule", None), "steps_per_epoch", None)
        steps = trainer.estimated_stepping_batches if per_epoch is None else epochs * per_epoch
        bounds += [] if math.isinf(steps) else [int(steps)]
    return min(bounds, default=-1)
