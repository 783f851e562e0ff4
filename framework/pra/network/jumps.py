"""The loss of a head that jumps: mean velocities of the flow over stretches of time, learned from the head itself.

Both ways give the mean velocity u(x_t, t, d) from t to t + d a target out of the head's own output, without gradient,
and rest on the flow loss, which teaches u(x_t, t, 0) = v(x_t, t).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from framework.pra.network.head import DiffusionHead, interpolate
from framework.pra.shapes import HeadNoise, Hidden, Targets, Times, TokenErrors

JumpLoss = Literal["shortcut", "mean_flow"]
DIFFERENCE = 0.005
"""Half the stretch of time over which a derivative along the path is measured, by central differences, which go through
sharded and compiled layers (ours)."""


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


def jump_errors(head: DiffusionHead, targets: Targets, hidden: Hidden, noise: JumpNoise, loss: JumpLoss) -> TokenErrors:
    """Squared error of the head's mean velocity, a mean over values and jumps.

    Args:
        head: one that knows jumps.
        targets: what the head is to generate; they carry no gradient.
        hidden: the context of each target.
        noise: the jumps.
        loss: where the mean velocity's target comes from.
    """
    target, context = targets.detach()[:, :, None], hidden[:, :, None]
    point = interpolate(noise.head, target, noise.start)
    with torch.no_grad():
        if loss == "shortcut":
            wanted = two_half_jumps(head, point, noise, context)
        else:
            wanted = mean_flow_target(head, point, target - noise.head, noise, context)
    mean_velocity = head(point, noise.start, context, noise.length)
    return (mean_velocity.float() - wanted.float()).square().mean((-1, -2))


def two_half_jumps(
    head: DiffusionHead, point: HeadNoise, noise: JumpNoise, context: Float[Tensor, "batch token _ hidden"]
) -> HeadNoise:
    """Mean velocity of a jump of half the length and one that goes on from its end (Frans et al. 2024, equation 4).

    u(x_t, t, d) = (u(x_t, t, d/2) + u(x', t + d/2, d/2)) / 2 with x' = x_t + d/2 u(x_t, t, d/2). Lengths are continuous
    here (ours).

    Args:
        head: gives both.
        point: x_t.
        noise: where the jumps start, and their lengths.
        context: the hidden state of each token.
    """
    half = noise.length / 2
    first = head(point, noise.start, context, half)
    second = head(point + half[..., None] * first, noise.start + half, context, half)
    return (first + second) / 2


def mean_flow_target(
    head: DiffusionHead,
    point: HeadNoise,
    velocity: HeadNoise,
    noise: JumpNoise,
    context: Float[Tensor, "batch token _ hidden"],
) -> HeadNoise:
    """Mean velocity by its derivative along the path (Geng et al. 2025, equation 6, with noise at t = 0).

    d u = integral of v from t to t + d; by t, at a fixed end, this is u(x_t, t, d) = v + d du/dt, with x moving at v.

    Args:
        head: gives u.
        point: x_t.
        velocity: target - noise, whose mean is v.
        noise: where the jumps start, and their lengths.
        context: the hidden state of each token.
    """
    ahead, behind = (
        head(point + step * velocity, noise.start + step, context, noise.length - step)
        for step in (DIFFERENCE, -DIFFERENCE)
    )
    return velocity + noise.length[..., None] * (ahead - behind) / (2 * DIFFERENCE)
