"""Sampling: token by token with a key-value cache, each token by a guided flow from noise."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from framework.core.errors import ConfigError
from framework.core.shapes import Images, Labels
from framework.pra.network.model import PRA
from framework.pra.network.patches import unpatchify
from framework.pra.noise import SampleNoise
from framework.pra.shapes import PixelTokens

Velocity = Callable[[Float[Tensor, "batch target"], Float[Tensor, "batch"]], Float[Tensor, "batch target"]]
"""Velocity v of a flow at (x, t)."""


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How tokens are drawn.

    Args:
        steps: steps of the flow for each token.
        method: `euler_maruyama` adds noise at every step but the last; `euler` is deterministic after the start.
        guidance: scale of classifier-free guidance at the last token; it grows linearly along the raster from 1, which
            is no guidance.
    """

    steps: int = 100
    method: Literal["euler", "euler_maruyama"] = "euler_maruyama"
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"sampler steps {self.steps}", hint="use 1 or more")
        if self.guidance < 1:
            raise ConfigError(f"guidance {self.guidance}", hint="use 1 (no guidance) or more")


def integrate_flow(
    velocity: Velocity,
    start: Float[Tensor, "batch target"],
    noise: Float[Tensor, "batch step target"] | None,
    steps: int,
) -> Float[Tensor, "batch target"]:
    """Follow a rectified flow from noise (t = 0) to data (t = 1).

    Euler: x += v dt. Euler-Maruyama: the stochastic equation with the same marginals, dx = (v + w s / 2) dt +
    sqrt(w) dW with the score s = -(x - t v) / (1 - t) and w = 1 - t (Ma et al. 2024, SiT, section 2), and a last step
    without noise.

    Args:
        velocity: v(x, t), called at t = 0, 1 / steps, ... below 1.
        start: standard normal.
        noise: standard normal, for all steps but the last; None follows the flow without noise, by Euler's method.
        steps: of equal length, 1 or more.
    """
    x = start
    for step in range(steps):
        time = x.new_full(x.shape[:-1], step / steps)
        v = velocity(x, time)
        if noise is None or step == steps - 1:
            x = x + v / steps
            continue
        t = step / steps
        drift = v - 0.5 * (x - t * v)
        x = x + drift / steps + ((1 - t) / steps) ** 0.5 * noise[:, step]
    return x


def guidance_at(position: int, num_tokens: int, guidance: float) -> float:
    """Guidance scale at a raster position: linear from 1 at the first to `guidance` at the last (ours).

    Args:
        position: 0 to `num_tokens - 1`.
        num_tokens: pixel tokens of an image.
        guidance: the scale at the last token, 1 (none) or more.
    """
    return guidance if num_tokens == 1 else 1 + (guidance - 1) * position / (num_tokens - 1)


def check_classes(classes: Iterable[int], num_classes: int, config: SamplerConfig) -> None:
    """Whether a model of so many classes can draw these.

    Args:
        classes: to be drawn.
        num_classes: of the model; 1 is an unconditional one.
        config: the sampler, whose guidance needs a class to drop.

    Raises:
        ConfigError: a class that the model does not know; guidance for an unconditional model.
    """
    outside = [label for label in classes if not 0 <= label < num_classes]
    if outside:
        raise ConfigError(f"class {outside[0]} is out of range", hint=f"use classes 0 to {num_classes - 1}")
    if num_classes == 1 and config.guidance != 1:
        raise ConfigError(
            f"guidance {config.guidance} for an unconditional model", hint="it has no class to drop; use guidance 1"
        )


@torch.no_grad()
def sample(model: PRA, labels: Labels, seeds: Sequence[int], config: SamplerConfig) -> Images:
    """Draw images of given classes, about in [-1, 1].

    Token by token: the head's flow generates a target from the hidden state, the decoder makes the pixel token of it,
    which is fed back (arXiv 2606.27978).

    Args:
        model: in evaluation mode.
        labels: one class for each image.
        seeds: one seed for each image; its noise is a function of the seed alone.
        config: the sampler.

    Raises:
        ConfigError: a class that the model does not know; guidance for an unconditional model.
    """
    check_classes(labels.tolist(), model.config.num_classes, config)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    architecture, batch = model.config, len(labels)
    source = SampleNoise(seeds, labels.device)
    guided, stochastic = config.guidance != 1, config.method == "euler_maruyama"
    streams = torch.cat([labels, torch.full_like(labels, model.transformer.null_class)]) if guided else labels
    hidden, cache = model.transformer.begin(streams)
    tokens: list[PixelTokens] = []
    for position in range(architecture.num_tokens):
        scale = guidance_at(position, architecture.num_tokens, config.guidance)
        drawn = source.normal(config.steps if stochastic else 1, architecture.target_size)
        start, noise = drawn[:, 0], drawn[:, 1:] if stochastic else None
        velocity = _guided_velocity(model, hidden[:, 0], scale if guided else None)
        target = integrate_flow(velocity, start, noise, config.steps)
        tokens.append(model.decode(target[:, None], hidden[:batch]).float())
        if position < architecture.num_tokens - 1:
            hidden = model.transformer.step(tokens[-1].repeat(2 if guided else 1, 1, 1), cache)
    return unpatchify(torch.cat(tokens, dim=1), architecture.patch_size, architecture.channels)


def _guided_velocity(model: PRA, hidden: Float[Tensor, "stream hidden"], scale: float | None) -> Velocity:
    """The head's velocity; with a scale w, v_null + w (v_class - v_null) (Ho and Salimans 2022).

    With a scale, `hidden` holds the states with the class and then those without.
    """
    if scale is None:
        return lambda x, time: model.head(x, time, hidden).float()

    def velocity(x: Float[Tensor, "batch target"], time: Float[Tensor, "batch"]) -> Float[Tensor, "batch target"]:
        with_class, without = model.head(x.repeat(2, 1), time.repeat(2), hidden).float().chunk(2)
        return without + scale * (with_class - without)

    return velocity
