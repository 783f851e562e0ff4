"""Exponential moving average of the weights, as a frozen twin of the model.

A twin, not a wrapper: it is saved with the model and can be sharded by the same call as the model, so that every rank
averages its own shards.
"""

import torch
from torch import Tensor, nn

from framework.errors import ConfigError


def check_decay(decay: float) -> None:
    """Raises ConfigError for a decay outside [0, 1)."""
    if not 0 <= decay < 1:
        raise ConfigError(f"ema_decay {decay}", mend="use a number in [0, 1), such as 0.9999")


def freeze_as_twin(twin: nn.Module, model: nn.Module) -> None:
    """Make `twin` a frozen copy of `model`, in evaluation mode."""
    twin.load_state_dict(model.state_dict())
    twin.requires_grad_(False).eval()


def decay_at(step: int, decay: float) -> float:
    """Decay after `step` optimizer steps: short averages first, so that early samples are not those of the start.

    min(decay, (1 + step) / (10 + step)), the usual ramp.
    """
    return min(decay, (1 + step) / (10 + step))


def _local(tensor: Tensor) -> Tensor:
    """The rank's own part of a sharded tensor; the tensor itself where it is whole."""
    return getattr(tensor, "_local_tensor", tensor)


@torch.no_grad()
def update_twin(twin: nn.Module, model: nn.Module, decay: float) -> None:
    """twin <- decay * twin + (1 - decay) * model, in one fused operation over local shards."""
    averages = [_local(p.detach()) for p in twin.parameters()]
    weights = [_local(p.detach()) for p in model.parameters()]
    torch._foreach_lerp_(averages, weights, 1 - decay)
