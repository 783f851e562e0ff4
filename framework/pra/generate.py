"""Many images from a model: class-balanced, in batches, the same whatever the batch size."""

from collections.abc import Iterable

import torch

from framework.core.seeding import seed_of
from framework.core.shapes import Images
from framework.pra.network.model import PRA
from framework.pra.sampling import SamplerConfig, sample

ROWS = 16
"""Batches are filled up to a multiple of this: matrix products of fewer rows, or of a rest, round differently, and an
autoregressive model amplifies the difference."""


def balanced_labels(num_images: int, classes: Iterable[int]) -> list[int]:
    """Classes in turn, so that counts differ by at most one."""
    turns = list(classes)
    return [turns[i % len(turns)] for i in range(num_images)]


def generate(
    model: PRA,
    labels: list[int],
    *,
    seed: int,
    sampler: SamplerConfig,
    batch_size: int = 256,
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
        device: where the images are made.
    """
    for start in range(0, len(labels), batch_size):
        chosen = labels[start : start + batch_size]
        rows = -(-len(chosen) // ROWS) * ROWS
        padded = torch.tensor((chosen + [chosen[0]] * ROWS)[:rows], device=device)
        seeds = [seed_of("sample", seed, start + i) for i in range(rows)]
        yield sample(model, padded, seeds, sampler)[: len(chosen)].cpu()
