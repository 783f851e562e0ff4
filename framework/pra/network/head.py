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


def interpolate(
    noise: Float[Tensor, "*axes target"], target: Float[Tensor, "*target_axes target"], time: Float[Tensor, "*axes"]
) -> Float[Tensor, "*axes target"]:
    """A point on rectified flow's straight path: x_t = (1 - t) noise + t target (Liu et al. 2023).

    Args:
        noise: standard normal, where the path starts.
        target: where it ends; axes of length 1 are repeated.
        time: t in [0, 1], one for all values of a token.
    """
    return (1 - time)[..., None] * noise + time[..., None] * target


class TimeEmbedding(nn.Module):
    """Sinusoidal features of a time in [0, 1] (Vaswani et al. 2017, section 3.5), through a small MLP (ours)."""

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
    """Velocity field v(x_t, t, h) of the flow from standard normal noise to a target token, given its hidden state.

    A residual MLP with adaLN. That a diffusion head generates each token is arXiv 2606.27978, after Li et al. (2024,
    MAR, section 3); the layers are ours.

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
        hidden: Float[Tensor, "*context_axes hidden"],
    ) -> Float[Tensor, "*axes target"]:
        """Velocity at a point of the flow.

        Args:
            x: the point x_t.
            time: t in [0, 1).
            hidden: the transformer's hidden states; their axes are those of `x`, or 1 where they are repeated.
        """
        output = self.network(x, self.project_context(hidden) + self.time_embedding(time))
        if self.prediction == "velocity":
            return output
        return (output - x) / (1 - time)[..., None]

    def weigh_error(
        self, error: Float[Tensor, "*axes target"], time: Float[Tensor, "*axes"]
    ) -> Float[Tensor, "*axes target"]:
        """The velocity's error as the loss counts it: bounded near the end of the path for the clean prediction.

        There it is multiplied by (1 - t) / (1 - min(t, `LAST_TIME`)) (Li and He 2025, JiT).
        """
        if self.prediction == "velocity":
            return error
        return error * ((1 - time) / (1 - time.clamp(max=LAST_TIME)))[..., None]
