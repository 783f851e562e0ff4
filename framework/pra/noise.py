"""Random numbers of one sample each: the same whatever batch, rank, order or device the sample comes in."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from framework.core.random.philox import WORDS, Seeds, normal_of, random_words, stream_seeds, uniform_of


class SampleNoise:
    """Independent streams of random numbers, one for each sample of a batch.

    What a sample gets depends on its own seed and on the sequence of calls alone, so a batch may be split, merged or
    spread over processes. All streams of a call are drawn together, where they are used: nothing is copied and nothing
    is waited for. Devices and compilers differ by rounding only, in the last digits of normal numbers. Ours.

    Args:
        seeds: one seed in [0, 2^63) for each sample of the batch; a tensor is on `device` already.
        device: where the numbers are drawn and lie.
        start: blocks of `WORDS` numbers that come before, below 2^32.
    """

    def __init__(
        self, seeds: Sequence[int] | Seeds, device: torch.device | str, *, start: int | Int[Tensor, ""] = 0
    ) -> None:
        self.device = torch.device(device)
        self.seeds = seeds if isinstance(seeds, Tensor) else stream_seeds(seeds, self.device)
        self._drawn = start

    def normal(self, *shape: int) -> Float[Tensor, "batch *shape"]:
        """Standard normal numbers."""
        return self.uniform_and_normal(0, torch.Size(shape).numel())[1].view(-1, *shape)

    def uniform(self, *shape: int) -> Float[Tensor, "batch *shape"]:
        """Uniform numbers in [0, 1)."""
        return self.uniform_and_normal(torch.Size(shape).numel(), 0)[0].view(-1, *shape)

    def uniform_and_normal(
        self, num_uniform: int, num_normal: int
    ) -> tuple[Float[Tensor, "batch uniform"], Float[Tensor, "batch normal"]]:
        """Both in one call of the generator.

        Args:
            num_uniform: uniform numbers in [0, 1) of each sample.
            num_normal: standard normal numbers of each sample.
        """
        first, others = -(-num_uniform // WORDS), -(-num_normal // WORDS)
        words = random_words(self.seeds, first + others, start=self._drawn)
        # Not in place: it may be a tensor of the caller's.
        self._drawn = self._drawn + first + others
        uniform = torch.cat([uniform_of(each[:, :first]) for each in words], dim=1)
        one, two, three, four = (each[:, first:] for each in words)
        normal = torch.cat([*normal_of(one, two), *normal_of(three, four)], dim=1)
        return uniform[:, :num_uniform], normal[:, :num_normal]
