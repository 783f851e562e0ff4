"""The loss of a head that jumps: mean velocities of the flow over stretches of time, learned from the head itself.

The mean velocity u(x_t, t, d) from t to t + d gets a target out of the head's own output, without gradient: of a short
jump its velocity in the middle, of a longer one two jumps of half the length (shortcut models, Frans et al. 2024, arXiv
2410.12557). All rests on the flow loss, which teaches u(x_t, t, 0) = v(x_t, t).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from framework.pra.network.head import DiffusionHead, interpolate
from framework.pra.shapes import HeadNoise, Hidden, RepeatedHidden, Targets, Times, TokenErrors

SHORT = 0.125
"""Length under which a jump is a step of the midpoint rule (ours)."""


@dataclass(frozen=True, kw_only=True)
class JumpNoise:
    """Randomness of the jumps of a step.

    Attributes:
        start: t, where a jump starts.
        length: d, how far it goes; t + d <= 1.
        head: standard normal, where the path starts.
    """

    start: Times
    length: Times
    head: HeadNoise


def jump_noise(
    uniform: Float[Tensor, "batch uniform"], normal: Float[Tensor, "batch normal"], num_tokens: int
) -> JumpNoise:
    """Jumps between two uniform times (ours), so that long ones from pure noise, as a sampler takes, are among them.

    Args:
        uniform: two numbers in [0, 1) for each jump.
        normal: standard normal numbers for each value of each jump's token.
        num_tokens: of an image.
    """
    pairs = uniform.view(len(uniform), num_tokens, -1, 2)
    start, end = pairs.amin(-1), pairs.amax(-1)
    return JumpNoise(start=start, length=end - start, head=normal.view(*start.shape, -1))


def jump_errors(head: DiffusionHead, targets: Targets, hidden: Hidden, noise: JumpNoise) -> TokenErrors:
    """Squared error of the head's mean velocity, a mean over values and jumps.

    Args:
        head: one that knows jumps.
        targets: what the head is to generate; they carry no gradient.
        hidden: the context of each target.
        noise: the jumps.
    """
    context = hidden[:, :, None]
    point = interpolate(noise.head, targets.detach()[:, :, None], noise.start)
    with torch.no_grad():
        halves, middle = two_half_jumps(head, point, noise, context), midpoint_step(head, point, noise, context)
        wanted = torch.where(noise.length[..., None] < SHORT, middle, halves)
    mean_velocity = head(point, noise.start, context, noise.length)
    return (mean_velocity.float() - wanted.float()).square().mean((-1, -2))


def two_half_jumps(head: DiffusionHead, point: HeadNoise, noise: JumpNoise, hidden: RepeatedHidden) -> HeadNoise:
    """Mean velocity of a jump of half the length and one that goes on from its end (Frans et al. 2024, equation 4).

    u(x_t, t, d) = (u(x_t, t, d/2) + u(x', t + d/2, d/2)) / 2 with x' = x_t + d/2 u(x_t, t, d/2). Lengths are continuous
    here (ours).

    Args:
        head: gives both.
        point: x_t.
        noise: where the jumps start, and their lengths.
        hidden: the states of each token.
    """
    half = noise.length / 2
    first = head(point, noise.start, hidden, half)
    second = head(point + half[..., None] * first, noise.start + half, hidden, half)
    return (first + second) / 2


def midpoint_step(head: DiffusionHead, point: HeadNoise, noise: JumpNoise, hidden: RepeatedHidden) -> HeadNoise:
    """Mean velocity of a short jump by the velocity at its middle, where half a step of Euler's leads (ours).

    Args:
        head: gives the velocity.
        point: x_t.
        noise: where the jumps start, and their lengths.
        hidden: the states of each token.
    """
    half = noise.length / 2
    first = head(point, noise.start, hidden)
    return head(point + half[..., None] * first, noise.start + half, hidden)
