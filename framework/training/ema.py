"""Exponential moving average of the weights, of a model, kept as a frozen copy of it.

A model of its own, not a wrapper: `build_with_ema` makes it and shards it with the model, so that every
rank averages its own shards, and it is saved with the model.
"""

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from framework.core.errors import ConfigError
from framework.training.strategies.backend import backend_of_tensor


def check_decay(decay: float) -> None:
    """Raises ConfigError for a decay outside [0, 1)."""
    if not 0 <= decay < 1:
        raise ConfigError(f"ema_decay {decay}", hint="use a number in [0, 1), such as 0.9999")


def decay_at(step: int, decay: float) -> float:
    """Decay after `step` optimizer steps: short averages first, so that early samples are not those of the start.

    min(decay, (1 + step) / (10 + step)), the usual ramp.
    """
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def update_ema(ema_model: nn.Module, model: nn.Module, decay: float) -> None:
    """ema_model <- decay * ema_model + (1 - decay) * model, in fused operations over each rank's own shards.

    Args:
        ema_model: frozen, sharded as the model.
        model: the one that trains.
        decay: in [0, 1).
    """
    pairs = zip(ema_model.parameters(), model.parameters(), strict=True)
    # Looked up once for both, in every step: they are sharded alike.
    spread = [(backend_of_tensor(average), average, weight) for average, weight in pairs]
    get_ema_multi_avg_fn(decay)(
        [backend.local_part(average) for backend, average, _ in spread],
        [backend.local_part(weight) for backend, _, weight in spread],
        0,
    )
    for backend, average, _ in spread:
        backend.drop_copies(average)
