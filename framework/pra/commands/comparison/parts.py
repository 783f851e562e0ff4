"""The parts of a comparison: a row at an image size with a seed, all of them with equal parameters."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from framework.core.errors import ConfigError
from framework.pra.network.build import build_generator
from framework.pra.network.config import VARIANTS, PRAConfig, VariantName

WIDTH_STEP = 8


@dataclass(frozen=True, kw_only=True)
class Part:
    """A run of the comparison.

    Attributes:
        architecture: of the model, whose variant is the row.
        seed: of training and sampling.
    """

    architecture: PRAConfig
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.architecture.variant}-{self.architecture.image_size}px-seed{self.seed}"


def num_parameters(config: PRAConfig) -> int:
    """Sampling parameters of an architecture, counted without making it."""
    with torch.device("meta"):
        return build_generator(config).num_sampling_parameters()


def match_parameters(config: PRAConfig, goal: int) -> PRAConfig:
    """The architecture with the head's width, a multiple of 8, that brings its parameters nearest to `goal`.

    Variants without a pixel decoder are smaller; their head, which has to do the decoder's work, gets the difference.
    `diffusion` has no head: it gets as many layers as there is room for with a condition as wide as they are, and the
    condition's width gets the rest.
    """
    if VARIANTS[config.variant].inputs == "diffused":
        config = replace(config, depth=_deepest(config, goal))
    # Parameters are a polynomial of second degree in the width: three of them tell the others (Newton's differences).
    first, second, third = (num_parameters(replace(config, head_width=k * WIDTH_STEP)) for k in (1, 2, 3))

    def parameters_at(width: int) -> int:
        k = width // WIDTH_STEP - 1
        return first + k * (second - first) + k * (k - 1) // 2 * (third - 2 * second + first)

    widths = range(WIDTH_STEP, 8 * max(config.head_width, config.width), WIDTH_STEP)
    reached = bisect_left(widths, goal, key=parameters_at)
    nearest = min(widths[max(0, reached - 1) : reached + 1], key=lambda width: abs(parameters_at(width) - goal))
    return replace(config, head_width=nearest)


def _deepest(config: PRAConfig, goal: int) -> int:
    one, two = (num_parameters(replace(config, depth=depth, head_width=config.width)) for depth in (1, 2))
    return max(1, 1 + (goal - one) // (two - one))


def at_size(config: PRAConfig, image_size: int) -> PRAConfig:
    """An architecture for images of another size: patches grow with them, so that the number of tokens stays.

    Args:
        config: the architecture.
        image_size: side of the images in pixels.

    Raises:
        ConfigError: a size at which a patch is not a whole number of pixels.
    """
    patch_size, rest = divmod(image_size * config.patch_size, config.image_size)
    if rest or patch_size < 1:
        problem = f"images of {image_size} pixels in {config.num_tokens} tokens"
        side = config.image_size // config.patch_size
        raise ConfigError(problem, hint=f"their side must be a multiple of the {side} patches along one side")
    return replace(config, image_size=image_size, patch_size=patch_size)


def plan_parts(
    base: PRAConfig, *, variants: Sequence[VariantName], sizes: Sequence[int], seeds: Sequence[int]
) -> list[Part]:
    """All parts, the first seed of all rows and sizes before the second.

    Parameters are those of the method at the size of `base`, whatever the row and the size.

    Args:
        base: the recipe's architecture.
        variants: the rows.
        sizes: sides of the images in pixels.
        seeds: of training and sampling.

    Raises:
        ConfigError: no seed, or a size at which a patch is not a whole number of pixels.
    """
    if min(seeds, default=-1) < 0:
        raise ConfigError(f"seeds {list(seeds)}", hint="give a seed or more, from 0 on")
    goal = num_parameters(replace(base, variant="pra"))
    architectures = [
        match_parameters(at_size(replace(base, variant=variant), size), goal) for size in sizes for variant in variants
    ]
    return [Part(architecture=each, seed=seed) for seed in seeds for each in architectures]
