"""The diffusion head: a rectified flow from noise to the next target, given the transformer's hidden state."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from framework.pra.network.layers import Linear, ModulatedMLP, ResidualBlock

TIME_FEATURES = 256
JUMP_PART = "jump_embedding"
"""Submodules of a head that it has for jumps alone."""
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


def clean_velocity(
    clean: Float[Tensor, "*axes target"], x: Float[Tensor, "*axes target"], time: Float[Tensor, "*time_axes"]
) -> Float[Tensor, "*axes target"]:
    """Velocity that leads from a point of the path to a clean target: (clean - x_t) / (1 - t).

    Args:
        clean: where the path ends.
        x: the point x_t.
        time: t in [0, 1); axes of length 1 are repeated.
    """
    return (clean - x) / (1 - time)[..., None]


def bounded_error(error: Float[Tensor, "*axes target"], time: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes target"]:
    """A velocity's error as the loss of a clean prediction counts it: bounded near the end of the path.

    There it is multiplied by (1 - t) / (1 - min(t, `LAST_TIME`)) (Li and He 2025, JiT).
    """
    return error * ((1 - time) / (1 - time.clamp(max=LAST_TIME)))[..., None]


class TimeEmbedding(nn.Module):
    """Sinusoidal features of a time in [0, 1] (Vaswani et al. 2017, section 3.5), through a small MLP (ours).

    Args:
        width: of the embedding.
        gain: factor on the last layer's initial weights; 0 starts the embedding at zero.
    """

    def __init__(self, width: int, *, gain: float = 1.0) -> None:
        super().__init__()
        self.hidden = Linear(TIME_FEATURES, width)
        self.out = Linear(width, width, gain=gain)

    def forward(self, time: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes width"]:
        half = TIME_FEATURES // 2
        frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=time.device) / half)
        angles = 1000 * time[..., None].float() * frequencies
        features = torch.cat([angles.cos(), angles.sin()], dim=-1)
        # Sharded weights may be gathered in another type.
        return self.out(F.silu(self.hidden(features.to(self.hidden.dtype))))


Conditions = tuple[Shaped[Tensor, "..."], ...]
"""What a hidden state or a time adds to the condition of the head's network."""


class SharedModulationMLP(nn.Module):
    """Residual MLP whose blocks get their modulations from layers outside of them, each shared by several blocks.

    `joint`: a modulation is linear in SiLU(state + time), as a block's own is (Peebles 2023). `separate`: it is a part
    linear in SiLU(state) plus a part linear in SiLU(time) that is the same for all blocks. A sampler then makes the
    first part once for a token and the second once for all tokens, and a step of the flow costs the blocks alone (ours;
    that time modulates all blocks alike is Chen et al. 2023, PixArt-alpha, section 2.3).

    Args:
        size: values of input and output.
        width: of the residual stream and of the conditions.
        depth: blocks.
        every: blocks that share a modulation, 1 or more.
        separate: how a modulation is made.
    """

    def __init__(self, *, size: int, width: int, depth: int, every: int, separate: bool) -> None:
        super().__init__()
        self.every, self.separate = every, separate
        self.modulations = nn.ModuleList(Linear(width, 3 * width, gain=0.0) for _ in range(0, depth, every))
        self.last_modulation = Linear(width, 2 * width, gain=0.0)
        self.time_modulation = Linear(width, 5 * width, bias=False, gain=0.0) if separate else None
        self.project_in = Linear(size, width)
        self.blocks = nn.ModuleList(ResidualBlock(width, modulated=True) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.project_out = Linear(width, size, gain=0.0)

    def of_state(self, context: Float[Tensor, "*axes width"]) -> Conditions:
        """What a projected hidden state adds to the conditions."""
        return self._modulations(context) if self.separate else (context,)

    def of_time(self, embedding: Float[Tensor, "*axes width"]) -> Conditions:
        """What an embedded time adds to the conditions."""
        if self.time_modulation is None:
            return (embedding,)
        width = embedding.shape[-1]
        blocks, last = self.time_modulation(F.silu(embedding)).split([3 * width, 2 * width], dim=-1)
        return (blocks,) * len(self.modulations) + (last,)

    def forward(
        self, x: Float[Tensor, "*axes target"], *conditions: Shaped[Tensor, "..."]
    ) -> Float[Tensor, "*axes target"]:
        """The output at `x`, under the sums of what state and time give."""
        *modulations, last = conditions if self.separate else self._modulations(conditions[0])
        x = self.project_in(x)
        for number, block in enumerate(self.blocks):
            x = block(x, modulations[number // self.every])
        shift, scale = last.chunk(2, dim=-1)
        return self.project_out(self.norm(x) * (1 + scale) + shift)

    def _modulations(self, context: Float[Tensor, "*axes width"]) -> Conditions:
        activated = F.silu(context)
        return (*(layer(activated) for layer in self.modulations), self.last_modulation(activated))


class DiffusionHead(nn.Module):
    """Velocity field v(x_t, t, h) of the flow from standard normal noise to a target token, given its hidden state.

    A residual MLP with adaLN. That a diffusion head generates each token is arXiv 2606.27978, after Li et al. (2024,
    MAR, section 3); the layers are ours.

    With `jumps` the field is u(x_t, t, d, h): the mean velocity from t to t + d along the path through x_t, so that x_t
    + d u lies at t + d. The velocity is that of d = 0 (Geng et al. 2025, MeanFlow, arXiv 2505.13447, section 4.1; Frans
    et al. 2024, shortcut models, arXiv 2410.12557, section 3).

    What jumps add starts at zero: a head that has learned the velocity goes on from there (ours).

    `forward` serves training. A sampler calls `of_state` once for a token, `of_time` once for all tokens, and
    `velocity` in each step.

    Args:
        target_size: values of the target.
        context_width: width of the hidden state.
        width: width of the residual MLP.
        depth: residual blocks.
        prediction: what the network puts out: the `velocity` (target - noise) itself, or the `clean` target, from
            which the velocity follows as (clean - x_t) / (1 - t).
        jumps: whether it knows mean velocities.
        modulation: how state and time modulate the blocks: `joint` or `separate` (see `SharedModulationMLP`).
        modulation_every: blocks that share a modulation.
    """

    def __init__(
        self,
        *,
        target_size: int,
        context_width: int,
        width: int,
        depth: int,
        prediction: Literal["velocity", "clean"],
        jumps: bool = False,
        modulation: Literal["joint", "separate"] = "joint",
        modulation_every: int = 1,
    ) -> None:
        super().__init__()
        self.target_size, self.prediction = target_size, prediction
        self.time_embedding = TimeEmbedding(width)
        self.jump_embedding = TimeEmbedding(width, gain=0.0) if jumps else None
        self.project_context = Linear(context_width, width)
        if modulation == "joint" and modulation_every == 1:
            # Each block has a modulation of its own.
            self.network = ModulatedMLP(
                inputs=target_size, outputs=target_size, width=width, depth=depth, context_width=width
            )
        else:
            self.network = SharedModulationMLP(
                size=target_size, width=width, depth=depth, every=modulation_every, separate=modulation == "separate"
            )

    def forward(
        self,
        x: Float[Tensor, "*axes target"],
        time: Float[Tensor, "*axes"],
        hidden: Float[Tensor, "*context_axes hidden"],
        jump: Float[Tensor, "*axes"] | None = None,
    ) -> Float[Tensor, "*axes target"]:
        """Velocity at a point of the flow.

        Args:
            x: the point x_t.
            time: t in [0, 1).
            hidden: the transformer's hidden states; their axes are those of `x`, or 1 where they are repeated.
            jump: d in [0, 1 - t]: the mean velocity until then; None for the velocity itself.
        """
        return self._velocity(x, time, self._of_state(hidden), self._of_time(time, jump))

    # Each of these gathers a sharded head's weights by itself, which `forward` has done already.

    def of_state(self, hidden: Float[Tensor, "*axes hidden"]) -> Conditions:
        """What hidden states add to the network's conditions."""
        return self._of_state(hidden)

    def of_time(self, time: Float[Tensor, "*axes"], jump: Float[Tensor, "*axes"] | None = None) -> Conditions:
        """What times, and the jumps that start there, add to the network's conditions."""
        return self._of_time(time, jump)

    def velocity(
        self,
        x: Float[Tensor, "*axes target"],
        time: Float[Tensor, "*context_axes"],
        state: Conditions,
        moment: Conditions,
    ) -> Float[Tensor, "*axes target"]:
        """Velocity at a point of the flow.

        Args:
            x: the point x_t.
            time: t in [0, 1).
            state: what `of_state` gave.
            moment: what `of_time` gave for t.
        """
        return self._velocity(x, time, state, moment)

    def _of_state(self, hidden: Float[Tensor, "*axes hidden"]) -> Conditions:
        context = self.project_context(hidden)
        return self.network.of_state(context) if isinstance(self.network, SharedModulationMLP) else (context,)

    def _of_time(self, time: Float[Tensor, "*axes"], jump: Float[Tensor, "*axes"] | None) -> Conditions:
        embedding = self.time_embedding(time)
        if self.jump_embedding is not None:
            embedding = embedding + self.jump_embedding(torch.zeros_like(time) if jump is None else jump)
        return self.network.of_time(embedding) if isinstance(self.network, SharedModulationMLP) else (embedding,)

    def _velocity(
        self,
        x: Float[Tensor, "*axes target"],
        time: Float[Tensor, "*context_axes"],
        state: Conditions,
        moment: Conditions,
    ) -> Float[Tensor, "*axes target"]:
        output = self.network(x, *(a + b for a, b in zip(state, moment, strict=True)))
        if self.prediction == "velocity":
            return output
        return clean_velocity(output, x, time)

    def weigh_error(
        self, error: Float[Tensor, "*axes target"], time: Float[Tensor, "*axes"]
    ) -> Float[Tensor, "*axes target"]:
        """The velocity's error as the loss counts it: bounded for the clean prediction."""
        return error if self.prediction == "velocity" else bounded_error(error, time)
