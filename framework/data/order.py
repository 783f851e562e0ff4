"""The order of training samples: a pure function of the seed and the number of samples consumed."""

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
from torch.utils.data import Sampler

from framework.errors import ConfigError


class SampleOrder(Sampler[tuple[int, int]]):
    """Yields (epoch, sample number) pairs, from wherever training stands.

    The samples form one endless stream: epoch after epoch, each a permutation of its own, cut to whole batches.
    `consumed`, the number of samples that all processes have finished since the start of training, is the only state;
    it is asked at the start of every iteration. An iteration has the length of an epoch wherever it starts, since
    Lightning counts a resumed epoch's batches from its beginning and stops by that count.

    Args:
        num_samples: size of the shard set.
        batch_size: samples of a batch on one process.
        seed: of the permutations.
        shuffle: False keeps the order of the shard set.
        rank: this process, in [0, num_ranks).
        num_ranks: number of processes; each takes its slice of every global batch.
        consumed: gives the number of samples finished so far.

    Raises:
        ConfigError: fewer samples than one batch of all processes.
    """

    def __init__(
        self,
        *,
        num_samples: int,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        num_ranks: int = 1,
        consumed: Callable[[], int] = lambda: 0,
    ) -> None:
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.num_ranks = num_ranks
        self.consumed = consumed
        self.global_batch_size = batch_size * num_ranks
        if num_samples < self.global_batch_size:
            problem = f"{num_samples} samples are fewer than a batch of {batch_size} for {num_ranks} process(es)"
            raise ConfigError(problem, mend="use a smaller batch_size or more images")

    @property
    def epoch_samples(self) -> int:
        """Samples of an epoch, over all processes: whole batches, so the last few of a permutation may be left out."""
        return self.num_samples // self.global_batch_size * self.global_batch_size

    def __len__(self) -> int:
        return self.epoch_samples // self.num_ranks

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return islice(self.stream(self.consumed()), len(self))

    def stream(self, consumed: int) -> Iterator[tuple[int, int]]:
        """This process's share of everything after the first `consumed` samples of the training.

        Args:
            consumed: samples over all processes; rounded down to whole batches.
        """
        epoch, offset = divmod(consumed, self.epoch_samples)
        offset -= offset % self.global_batch_size
        while True:
            order = self.epoch_order(epoch)
            for start in range(offset, self.epoch_samples, self.global_batch_size):
                first = start + self.rank * self.batch_size
                yield from ((epoch, number) for number in order[first : first + self.batch_size].tolist())
            epoch, offset = epoch + 1, 0

    def epoch_order(self, epoch: int) -> np.ndarray:
        """The permutation of all samples in `epoch`, int64."""
        if not self.shuffle:
            return np.arange(self.num_samples)
        # `num_samples` is no sample's number, so this stream is not that of any sample's augmentation.
        return np.random.default_rng((self.seed, epoch, self.num_samples)).permutation(self.num_samples)
