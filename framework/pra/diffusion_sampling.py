"""Sampling of the row `diffusion`: a guided flow from noise for all tokens of an image together."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from framework.core.shapes import Images, Labels
from framework.pra.network.diffusion import PixelDiffusion
from framework.pra.network.patches import unpatchify
from framework.pra.noise import SampleNoise
from framework.pra.sampling import (
    SamplerConfig,
    check_classes,
    check_sampler,
    guided,
    integrate_flow,
    streams_of,
    time_grid,
)


@torch.no_grad()
def sample_diffusion(model: PixelDiffusion, labels: Labels, seeds: Sequence[int], config: SamplerConfig) -> Images:
    """Draw images of given classes, about in [-1, 1]; guidance has its whole scale at every token.

    Args:
        model: in evaluation mode.
        labels: one class for each image.
        seeds: one seed for each image; its noise is a function of the seed alone.
        config: the sampler, whose steps are those of the whole image.

    Raises:
        ConfigError: a class that the model does not know; guidance for an unconditional model; jumps.
    """
    architecture, batch = model.config, len(labels)
    check_classes(labels.tolist(), architecture.num_classes, config)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    check_sampler(architecture, config)
    stochastic = config.method == "euler_maruyama"
    tokens, pixel = architecture.num_tokens, architecture.pixel_size
    drawn = SampleNoise(seeds, labels.device).normal(config.steps if stochastic else 1, tokens * pixel)
    times = time_grid(config.steps, config.time_shift)
    streams = streams_of(labels, architecture.num_classes, config)

    def velocity(x: Float[Tensor, "batch target"], step: int) -> Float[Tensor, "batch target"]:
        points = x.view(batch, tokens, pixel).repeat(len(streams) // batch, 1, 1)
        time = torch.full((len(streams),), times[step], device=labels.device)
        found = model.velocity(points, time, streams).flatten(1)
        return found if config.guidance == 1 else guided(found, config.guidance)

    image = integrate_flow(
        velocity, drawn[:, 0], times, noise=drawn[:, 1:] if stochastic else None, heun=config.method == "heun"
    )
    return unpatchify(image.view(batch, tokens, pixel), architecture.patch_size, architecture.channels)
