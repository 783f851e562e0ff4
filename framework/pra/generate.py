"""Many images from a model: class-balanced, in batches, the same whatever the batch size."""

from collections.abc import Iterable

import torch
from torch import Tensor

from framework.pra.model import PRA
from framework.pra.noise import seed_of
from framework.pra.sampling import SamplerConfig, sample
from framework.shapes import Images


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

    The noise of image number i is a function of (seed, i) alone. Matrix products round differently for different
    batch sizes, so pixels agree to float rounding.
    """
    for start in range(0, len(labels), batch_size):
        chosen: Tensor = torch.tensor(labels[start : start + batch_size], device=device)
        seeds = [seed_of("sample", seed, start + i) for i in range(len(chosen))]
        yield sample(model, chosen, seeds, sampler).cpu()
