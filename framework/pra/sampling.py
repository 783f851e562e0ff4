"""Sampling: token by token with a key-value cache, each token by a guided flow from noise."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from framework.core.errors import ConfigError
from framework.core.random.philox import WORDS, Seeds, stream_seeds
from framework.core.shapes import Images, Labels
from framework.pra.network.config import PRAConfig
from framework.pra.network.head import Conditions, DiffusionHead
from framework.pra.network.layers import KVCache
from framework.pra.network.model import PRA
from framework.pra.network.patches import unpatchify
from framework.pra.noise import SampleNoise
from framework.pra.shapes import Hidden, PixelTokens

Velocity = Callable[[Float[Tensor, "batch target"], int], Float[Tensor, "batch target"]]
"""Velocity v of a flow at x and at the time of that number on the sampler's grid."""
TokenStep = Callable[[PRA, "SamplerConfig", "Grid", "Drawing"], "Drawing"]
"""Draws one more token of each image."""
SamplingMethod = Literal["euler", "euler_maruyama", "heun", "jump"]


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How tokens are drawn.

    Args:
        steps: steps of the flow for each token.
        method: `euler_maruyama` adds noise at every step but the last; `euler` and `heun` are deterministic after the
            start, and `heun` calls the head twice in every step but the last; `jump` takes each step at the mean
            velocity, of a head that was trained with `head_jumps`.
        time_shift: makes the steps unequal: above 1 they are shorter near noise, below 1 near the image.
        guidance: scale of classifier-free guidance at the last token; it grows linearly along the raster from 1, which
            is no guidance.
    """

    steps: int = 100
    method: SamplingMethod = "euler_maruyama"
    time_shift: float = 1.0
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"sampler steps {self.steps}", hint="use 1 or more")
        if self.method not in get_args(SamplingMethod):
            raise ConfigError(
                f"sampler method {self.method!r}", hint=f"use one of {', '.join(get_args(SamplingMethod))}"
            )
        if not 0 < self.time_shift < float("inf"):
            raise ConfigError(f"time_shift {self.time_shift}", hint="use a number above 0; 1 makes all steps equal")
        if not 1 <= self.guidance < float("inf"):
            raise ConfigError(f"guidance {self.guidance}", hint="use 1 (no guidance) or more")


def time_grid(steps: int, shift: float) -> list[float]:
    """Times from 0 to 1 that the steps lie between: t = u / (u + shift (1 - u)) for u = 0, 1 / steps, ..., 1.

    Esser et al. 2024 (section 5.3.2, equation 23), whose time runs the other way.

    Args:
        steps: between them, 1 or more.
        shift: above 0; 1 leaves them equal.
    """
    even = [step / steps for step in range(steps + 1)]
    return [u / (u + shift * (1 - u)) for u in even]


def integrate_flow(
    velocity: Velocity,
    start: Float[Tensor, "batch target"],
    times: Sequence[float],
    *,
    noise: Float[Tensor, "batch step target"] | None = None,
    heun: bool = False,
) -> Float[Tensor, "batch target"]:
    """Follow a rectified flow from noise (t = 0) to data (t = 1).

    Euler: x += v dt. Heun: v is the mean of the velocities at both ends of the step, the far one at the point where
    Euler's step leads; the last step is Euler's, as at t = 1 a head that predicts the clean target has no velocity
    (Karras et al. 2022, algorithm 1). Euler-Maruyama: the stochastic equation with the same marginals, dx = (v + w s /
    2) dt + sqrt(w) dW with the score s = -(x - t v) / (1 - t) and w = 1 - t (Ma et al. 2024, SiT, section 2), and a
    last step without noise.

    Args:
        velocity: v(x, number of the time); called at all times but the last.
        start: standard normal.
        times: from 0 to 1, rising.
        noise: standard normal, for all steps but the last, of Euler-Maruyama; None follows the flow without noise.
        heun: by Heun's method; without noise.
    """
    x, last = start, len(times) - 2
    for step, (t, after) in enumerate(pairwise(times)):
        dt, v = after - t, velocity(x, step)
        if step < last and noise is not None:
            drift = v - 0.5 * (x - t * v)
            x = x + drift * dt + ((1 - t) * dt) ** 0.5 * noise[:, step]
            continue
        if step < last and heun:
            v = (v + velocity(x + v * dt, step + 1)) / 2
        x = x + v * dt
    return x


def guidance_at(
    position: int | Int[Tensor, ""], num_tokens: int, guidance: float
) -> float | Int[Tensor, ""] | Float[Tensor, ""]:
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


def check_sampler(architecture: PRAConfig, config: SamplerConfig) -> None:
    """Whether a model can be sampled so.

    Raises:
        ConfigError: jumps of a head that did not learn them.
    """
    if config.method == "jump" and not architecture.head_jumps:
        raise ConfigError(
            "sampler method jump for a head that knows no jumps",
            hint="train with model.architecture.head_jumps true, or use another method",
        )


def streams_of(labels: Labels, null_class: int, config: SamplerConfig) -> Int[Tensor, "stream"]:
    """The classes of a batch, under guidance followed by as many null classes.

    Args:
        labels: one class for each image.
        null_class: stands for no class.
        config: the sampler.
    """
    return labels if config.guidance == 1 else torch.cat([labels, torch.full_like(labels, null_class)])


def guided(
    both: Float[Tensor, "stream target"], scale: float | Int[Tensor, ""] | Float[Tensor, ""]
) -> Float[Tensor, "batch target"]:
    """Velocities v_null + w (v_class - v_null) (Ho and Salimans 2022); those with the class stand before the others."""
    with_class, without = both.chunk(2)
    return without + scale * (with_class - without)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Times of the flow's steps, and what they add to the head's conditions: the same for all tokens and images.

    Attributes:
        times: that the steps lie between, from 0 to 1.
        starts: all of them but the last, on the device.
        moments: the head's conditions at each of these.
    """

    times: tuple[float, ...]
    starts: Float[Tensor, "step"]
    moments: tuple[Conditions, ...]

    @classmethod
    def of(cls, head: DiffusionHead, config: SamplerConfig, device: torch.device) -> "Grid":
        """The grid of a sampler for a head.

        Args:
            head: gives the conditions.
            config: the sampler.
            device: of the head.
        """
        times = time_grid(config.steps, config.time_shift)
        starts = torch.tensor(times[:-1], device=device)
        jumps = config.method == "jump"
        lengths = torch.tensor([after - t for t, after in pairwise(times)], device=device) if jumps else None
        conditions = head.of_time(starts, lengths)
        moments = tuple(tuple(each[step] for each in conditions) for step in range(len(starts)))
        return cls(times=tuple(times), starts=starts, moments=moments)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A batch of images in the making. Its tensors are written in place, so that all tokens' steps are the same.

    Attributes:
        tokens: pixel tokens; zeros where none has been drawn.
        cache: of the transformer.
        seeds: of the images' noise.
    """

    tokens: PixelTokens
    cache: KVCache
    seeds: Seeds


def first_token(model: PRA, config: SamplerConfig, grid: Grid, labels: Labels, seeds: Seeds) -> Drawing:
    """Begin images of given classes: draw their first tokens.

    Args:
        model: in evaluation mode.
        config: the sampler.
        grid: its steps.
        labels: one class for each image.
        seeds: of the images' noise.
    """
    hidden, cache = model.transformer.begin(streams_of(labels, model.transformer.null_class, config))
    tokens = hidden.new_zeros(len(labels), model.config.num_tokens, model.config.pixel_size, dtype=torch.float32)
    drawing = Drawing(tokens=tokens, cache=cache, seeds=seeds)
    _draw(model, config, grid, drawing, hidden)
    return drawing


def next_token(model: PRA, config: SamplerConfig, grid: Grid, drawing: Drawing) -> Drawing:
    """Draw one more token of each image: transformer, flow with guidance, decoder.

    The token's number is in the cache's length, a tensor: compiled or captured once, this serves all tokens.

    Args:
        model: in evaluation mode.
        config: the sampler.
        grid: its steps.
        drawing: gets the token.

    Returns:
        The drawing that was given.
    """
    last = drawing.tokens.index_select(1, _position(model, drawing)[None])
    hidden = model.transformer.step(last.repeat(2 if config.guidance != 1 else 1, 1, 1), drawing.cache)
    _draw(model, config, grid, drawing, hidden)
    return drawing


@torch.no_grad()
def sample(
    model: PRA, labels: Labels, seeds: Sequence[int], config: SamplerConfig, *, step: TokenStep = next_token
) -> Images:
    """Draw images of given classes, about in [-1, 1].

    Token by token: the head's flow generates a target from the hidden state, the decoder makes the pixel token of it,
    which is fed back (arXiv 2606.27978).

    Args:
        model: in evaluation mode.
        labels: one class for each image.
        seeds: one seed for each image; its noise is a function of the seed alone.
        config: the sampler.
        step: what draws each token but the first: `next_token`, or a faster form of it.

    Raises:
        ConfigError: a class that the model does not know; guidance for an unconditional model; jumps that its head did
            not learn.
    """
    check_classes(labels.tolist(), model.config.num_classes, config)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    check_sampler(model.config, config)
    grid = Grid.of(model.head, config, labels.device)
    drawing = first_token(model, config, grid, labels, stream_seeds(seeds, labels.device))
    for _ in range(model.config.num_tokens - 1):
        drawing = step(model, config, grid, drawing)
    return unpatchify(drawing.tokens, model.config.patch_size, model.config.channels)


def _position(model: PRA, drawing: Drawing) -> Int[Tensor, ""]:
    """Raster position of the token that comes after those in the cache."""
    return drawing.cache.length - model.config.class_tokens


def _draw(model: PRA, config: SamplerConfig, grid: Grid, drawing: Drawing, hidden: Hidden) -> None:
    position, batch = _position(model, drawing), len(drawing.tokens)
    stochastic = config.method == "euler_maruyama"
    num_draws, size = config.steps if stochastic else 1, model.config.target_size
    start = position * -(-num_draws * size // WORDS)
    drawn = SampleNoise(drawing.seeds, drawing.seeds.device, start=start).normal(num_draws, size)
    scale = guidance_at(position, model.config.num_tokens, config.guidance) if config.guidance != 1 else None
    velocity = _guided_velocity(model.head, hidden[:, 0], grid, scale)
    noise = drawn[:, 1:] if stochastic else None
    target = integrate_flow(velocity, drawn[:, 0], grid.times, noise=noise, heun=config.method == "heun")
    drawing.tokens.index_copy_(1, position[None], model.decode(target[:, None], hidden[:batch]).float())


def _guided_velocity(
    head: DiffusionHead,
    hidden: Float[Tensor, "stream hidden"],
    grid: Grid,
    scale: float | Int[Tensor, ""] | Float[Tensor, ""] | None,
) -> Velocity:
    """The head's velocity, guided with a scale.

    With a scale, `hidden` holds the states with the class and then those without.
    """
    state = head.of_state(hidden)
    if scale is None:
        return lambda x, step: head.velocity(x, grid.starts[step], state, grid.moments[step]).float()

    def velocity(x: Float[Tensor, "batch target"], step: int) -> Float[Tensor, "batch target"]:
        both = head.velocity(x.repeat(2, 1), grid.starts[step], state, grid.moments[step])
        return guided(both.float(), scale)

    return velocity
