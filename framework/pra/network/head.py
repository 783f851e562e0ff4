"""The diffusion head: a rectified flow from noise to the next target, given the transformer's hidden state."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from framework.pra.network.layers import Linear, ModulatedMLP

TIME_FEATURES = 256
LAST_TIME = 0.95
"""Above this time the clean prediction's error is divided by `1 - LAST_TIME` only, so that no weight explodes (JiT)."""


def interpolate(noise: Tensor, target: Tensor, time: Tensor) -> Tensor:
    """Rectified flow's path: x_t = (1 - t) noise + t target (Liu et al. 2023), t in [0, 1], broadcast over values."""
    return (1 - time)[..., None] * noise + time[..., None] * target


class TimeEmbedding(nn.Module):
    """Sinusoidal features of a time in [0, 1], through a small MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = Linear(TIME_FEATURES, width)
        self.out = Linear(width, width)

    def forward(self, time: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes width"]:
        half = TIME_FEATURES // 2
        frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=time.device) / half)
        angles = 1000 * time[..., None].float() * frequencies
        features = torch.cat([angles.cos(), angles.sin()], dim=-1)
        return self.out(F.silu(self.hidden(features)))


class DiffusionHead(nn.Module):
    """Velocity field of the flow from standard normal noise to a target token, given its hidden state.

    Args:
        target_size: values of the target.
        context_width: width of the hidden state.
        width: width of the residual MLP.
        depth: residual blocks.
        prediction: what the network puts out: the `velocity` (target - noise) itself, or the `clean` target, from
            which the velocity follows as (clean - x_t) / (1 - t).
    """

    def __init__(
        self,
        *,
        target_size: int,
        context_width: int,
        width: int,
        depth: int,
        prediction: Literal["velocity", "clean"],
    ) -> None:
        super().__init__()
        self.target_size, self.prediction = target_size, prediction
        self.time_embedding = TimeEmbedding(width)
        self.project_context = Linear(context_width, width)
        self.network = ModulatedMLP(
            inputs=target_size, outputs=target_size, width=width, depth=depth, context_width=width
        )

    def forward(
        self,
        x: Float[Tensor, "*axes target"],
        time: Float[Tensor, "*axes"],
        hidden: Float[Tensor, "*context hidden"],
    ) -> Float[Tensor, "*axes target"]:
        """Velocity at (x, time), time below 1; `hidden` has the same axes as `x`, or 1 where they repeat."""
        output = self.network(x, self.project_context(hidden) + self.time_embedding(time))
        if self.prediction == "velocity":
            return output
        return (output - x) / (1 - time)[..., None]

    def weigh_error(self, error: Float[Tensor, "*axes target"], time: Float[Tensor, "*axes"]) -> Tensor:
        """The velocity's error as the loss counts it: bounded near the end of the path for the clean prediction."""
        if self.prediction == "velocity":
            return error
        return error * ((1 - time) / (1 - time.clamp(max=LAST_TIME)))[..., None]
