"""Exponential moving average of the weights, as a frozen twin of the model.

A twin, not a wrapper: `framework.training.sharding.build_with_twin` makes and shards it with the model, so that every
rank averages its own shards, and it is saved with the model.
"""

from typing import Any, cast

import torch
from torch import nn

from framework.errors import ConfigError
from framework.training.sharding import local_part


def check_decay(decay: float) -> None:
    """Raises ConfigError for a decay outside [0, 1)."""
    if not 0 <= decay < 1:
        raise ConfigError(f"ema_decay {decay}", mend="use a number in [0, 1), such as 0.9999")


def decay_at(step: int, decay: float) -> float:
    """Decay after `step` optimizer steps: short averages first, so that early samples are not those of the start.

    min(decay, (1 + step) / (10 + step)), the usual ramp.
    """
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def update_twin(twin: nn.Module, model: nn.Module, decay: float) -> None:
    """twin <- decay * twin + (1 - decay) * model, in fused operations over each rank's own shards."""
    averages = cast(list[Any], list(twin.parameters()))
    weights = [local_part(p) for p in model.parameters()]
    torch._foreach_lerp_([local_part(p) for p in averages], weights, 1 - decay)
    for average in averages:
        # ZeRO-3 keeps small weights whole besides its partition; that copy is now the old average.
        if hasattr(average, "ds_tensor") and average.ds_status.name == "AVAILABLE":
            average.partition()
