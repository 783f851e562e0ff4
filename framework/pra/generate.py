"""Many images from a model: class-balanced, in batches, the same whatever the batch size."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext

import torch

from framework.core.random.seeding import seed_of
from framework.core.shapes import Images, Labels
from framework.pra.diffusion_sampling import sample_diffusion
from framework.pra.network.diffusion import PixelDiffusion
from framework.pra.network.generator import ImageGenerator
from framework.pra.network.model import PRA
from framework.pra.network.packing import Precision, is_packed
from framework.pra.sampling import SamplerConfig, TokenStep, next_token, sample

ROWS = 16
"""Batches are filled up to a multiple of this: matrix products of fewer rows, or of a rest, round differently, and an
autoregressive model amplifies the difference."""
PACKED_ROWS = 2
"""As `ROWS`, of a packed model: a single row alone is multiplied in another order."""


def balanced_labels(num_images: int, classes: Iterable[int]) -> list[int]:
    """Classes in turn, so that counts differ by at most one."""
    turns = list(classes)
    return [turns[i % len(turns)] for i in range(num_images)]


def generate(
    model: ImageGenerator,
    labels: list[int],
    *,
    seed: int,
    sampler: SamplerConfig,
    batch_size: int = 256,
    precision: Precision | None = None,
    device: torch.device | str = "cpu",
) -> Iterable[Images]:
    """Yield batches of images of the given classes, on the CPU.

    The noise of image number i is a function of (seed, i) alone. Rounding is kept apart from the batch size too, as far
    as the matrix products' kernels allow: bitwise on the CPUs tried, while a GPU may choose others for other sizes.

    Args:
        model: in evaluation mode, on `device`.
        labels: the class of each image.
        seed: of all images.
        sampler: how tokens are drawn.
        batch_size: images of a batch, 1 or more.
        precision: of matrix products; by default that of the autocast around it, if there is one.
        device: where the images are made.
    """
    for start in range(0, len(labels), batch_size):
        numbers = range(start, min(start + batch_size, len(labels)))
        yield draw_numbered(model, labels, numbers, seed=seed, sampler=sampler, precision=precision, device=device)


def draw_numbered(
    model: ImageGenerator,
    labels: Sequence[int],
    numbers: range,
    *,
    seed: int,
    sampler: SamplerConfig,
    precision: Precision | None = None,
    device: torch.device | str = "cpu",
    step: TokenStep = next_token,
    fill_up_to: int = 1,
) -> Images:
    """Images of certain numbers among those that `generate` yields, on the CPU.

    Args:
        model: in evaluation mode, on `device`.
        labels: the class of each image, of all numbers.
        numbers: consecutive ones, of a batch.
        seed: of all images.
        sampler: how tokens are drawn.
        precision: of matrix products; by default that of the autocast around it, if there is one; a packed model has
            its own.
        device: where the images are made.
        step: what draws a token.
        fill_up_to: images that are drawn at least, so that all batches have one size; those too many are dropped.
    """
    chosen, packed = [labels[number] for number in numbers], is_packed(model)
    every = PACKED_ROWS if packed else ROWS
    rows = -(-max(len(chosen), fill_up_to) // every) * every
    padded = torch.tensor(chosen + [chosen[0]] * (rows - len(chosen)), device=device)
    seeds = [seed_of("sample", seed, numbers.start + i) for i in range(rows)]
    kind, own = torch.device(device).type, precision is None and not packed
    cast = nullcontext() if own else torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16" and not packed)
    with cast:
        return _sample(model, padded, seeds, sampler, step)[: len(chosen)].float().cpu()


def _sample(
    model: ImageGenerator, labels: Labels, seeds: Sequence[int], sampler: SamplerConfig, step: TokenStep
) -> Images:
    """Images by the model's own way of sampling; arguments are those of `sample`."""
    if isinstance(model, PixelDiffusion):
        return sample_diffusion(model, labels, seeds, sampler)
    assert isinstance(model, PRA)
    return sample(model, labels, seeds, sampler, step=step)
