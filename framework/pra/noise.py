"""Random numbers of one sample each: the same whatever batch, rank or order the sample comes in."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


class SampleNoise:
    """Independent streams of random numbers, one for each sample of a batch.

    What a sample gets depends on its own seed and on the sequence of calls alone, so a batch may be split, merged or
    spread over processes. Numbers differ between device types (the generators do). Ours.

    Args:
        seeds: one seed in [0, 2^63) for each sample of the batch.
        device: where the numbers are drawn and lie.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.generators = [torch.Generator(self.device).manual_seed(seed) for seed in seeds]

    def normal(self, *shape: int) -> Float[Tensor, "batch *shape"]:
        """Standard normal numbers."""
        return torch.stack([torch.randn(shape, generator=g, device=self.device) for g in self.generators])

    def uniform(self, *shape: int) -> Float[Tensor, "batch *shape"]:
        """Uniform numbers in [0, 1)."""
        return torch.stack([torch.rand(shape, generator=g, device=self.device) for g in self.generators])
