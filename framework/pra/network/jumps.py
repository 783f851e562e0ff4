"""The loss of a head that jumps: mean velocities of the flow over stretches of time, learned from the head itself.

The mean velocity u(x_t, t, d) from t to t + d gets a target out of the head's own output, without gradient: of a short
jump its velocity in the middle, of a longer one two jumps of half the length (shortcut models, Frans et al. 2024, arXiv
2410.12557). All rests on the flow loss, which teaches u(x_t, t, 0) = v(x_t, t).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from framework.pra.network.head import DiffusionHead, Guidance, interpolate
from framework.pra.shapes import HeadNoise, Hidden, RepeatedHidden, Targets, Times, TokenErrors, TokenScales

SHORT = 0.125
"""Length under which a jump is a step of the midpoint rule (ours)."""


@dataclass(frozen=True, kw_only=True)
class JumpNoise:
    """Randomness of the jumps of a step.

    Attributes:
        start: t, where a jump starts.
        length: d, how far it goes; t + d <= 1.
        head: standard normal, where the path starts.
        scale: w, of the guidance, for all jumps of a token; None where none is learned.
    """

    start: Times
    length: Times
    head: HeadNoise
    scale: TokenScales | None = None


def num_uniform_of_jumps(num_tokens: int, repeats: int, *, guided: bool) -> int:
    """Uniform numbers that an image's jumps take.

    Args:
        num_tokens: of an image.
        repeats: jumps of a token.
        guided: whether each token gets a scale.
    """
    return num_tokens * (2 * repeats + guided)


def jump_noise(
    uniform: Float[Tensor, "batch uniform"],
    normal: Float[Tensor, "batch normal"],
    num_tokens: int,
    *,
    guidance: float = 1.0,
) -> JumpNoise:
    """Jumps between two uniform times (ours), so that long ones from pure noise, as a sampler takes, are among them.

    Scales are uniform from 1 to `guidance`, as those of a sampler along the raster (ours).

    Args:
        uniform: `num_uniform_of_jumps` numbers in [0, 1).
        normal: standard normal numbers for each value of each jump's token.
        num_tokens: of an image.
        guidance: the largest scale; 1 for none.
    """
    scale = None
    if guidance > 1:
        scale, uniform = 1 + (guidance - 1) * uniform[:, :num_tokens], uniform[:, num_tokens:]
    pairs = uniform.view(len(uniform), num_tokens, -1, 2)
    start, end = pairs.amin(-1), pairs.amax(-1)
    return JumpNoise(start=start, length=end - start, head=normal.view(*start.shape, -1), scale=scale)


@dataclass(frozen=True, kw_only=True)
class JumpContext:
    """The hidden states that jumps depend on.

    Attributes:
        hidden: of each target.
        guidance: scales and the states without class; None where no guidance is learned.
    """

    hidden: RepeatedHidden
    guidance: Guidance | None

    @classmethod
    def of(cls, hidden: Hidden, without_class: Hidden | None, noise: JumpNoise) -> "JumpContext":
        """For all jumps of a token alike.

        Args:
            hidden: of each token.
            without_class: the same of images that are shown without their class; None where no guidance is learned.
            noise: the jumps, with their scales.
        """
        guidance = None
        if without_class is not None and noise.scale is not None:
            guidance = Guidance(noise.scale[:, :, None], without_class[:, :, None])
        return cls(hidden=hidden[:, :, None], guidance=guidance)


def jump_errors(
    head: DiffusionHead, targets: Targets, hidden: Hidden, noise: JumpNoise, without_class: Hidden | None = None
) -> TokenErrors:
    """Squared error of the head's mean velocity, a mean over values and jumps.

    Args:
        head: one that knows jumps.
        targets: what the head is to generate; they carry no gradient.
        hidden: the context of each target.
        noise: the jumps.
        without_class: the context of images that are shown without their class; None where no guidance is learned.
    """
    context = JumpContext.of(hidden, without_class, noise)
    point = interpolate(noise.head, targets.detach()[:, :, None], noise.start)
    with torch.no_grad():
        halves, middle = two_half_jumps(head, point, noise, context), midpoint_step(head, point, noise, context)
        wanted = torch.where(noise.length[..., None] < SHORT, middle, halves)
    mean_velocity = head(point, noise.start, context.hidden, noise.length, context.guidance)
    return (mean_velocity.float() - wanted.float()).square().mean((-1, -2))


def two_half_jumps(head: DiffusionHead, point: HeadNoise, noise: JumpNoise, context: JumpContext) -> HeadNoise:
    """Mean velocity of a jump of half the length and one that goes on from its end (Frans et al. 2024, equation 4).

    u(x_t, t, d) = (u(x_t, t, d/2) + u(x', t + d/2, d/2)) / 2 with x' = x_t + d/2 u(x_t, t, d/2). Lengths are continuous
    here (ours).

    Args:
        head: gives both.
        point: x_t.
        noise: where the jumps start, and their lengths.
        context: the hidden states of each token.
    """
    half = noise.length / 2
    first = head(point, noise.start, context.hidden, half, context.guidance)
    second = head(point + half[..., None] * first, noise.start + half, context.hidden, half, context.guidance)
    return (first + second) / 2


def midpoint_step(head: DiffusionHead, point: HeadNoise, noise: JumpNoise, context: JumpContext) -> HeadNoise:
    """Mean velocity of a short jump by the velocity at its middle, where half a step of Euler's leads (ours).

    Args:
        head: gives the velocity.
        point: x_t.
        noise: where the jumps start, and their lengths.
        context: the hidden states of each token.
    """
    half = noise.length / 2
    first = _guided_velocity(head, point, noise.start, context)
    return _guided_velocity(head, point + half[..., None] * first, noise.start + half, context)


def _guided_velocity(head: DiffusionHead, point: HeadNoise, time: Times, context: JumpContext) -> HeadNoise:
    """v_null + w (v - v_null) (Ho and Salimans 2022), of the head's velocities."""
    velocity = head(point, time, context.hidden)
    if context.guidance is None:
        return velocity
    without = head(point, time, context.guidance.without_class)
    return without + context.guidance.scale[..., None] * (velocity - without)
