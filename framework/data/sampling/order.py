"""The order of training samples: a pure function of the shards' sizes, the seed, the epoch and the shuffle setting.

Where training stands is a `Position`, counted in samples of all processes together. Neither depends on the number of
processes, of loader workers, or of batches that are accumulated for a step.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal
from zlib import crc32

import numpy as np
from jaxtyping import Int

from framework.core.errors import ConfigError
from framework.data.sampling.permutation import KeyedPermutation, KeyedShardOrder

Shuffle = Literal["none", "shards", "block", "full"]
"""none: as in the shards. shards: their order is random, not that inside them. block: random within windows of shards
whose order is random, so that few files are in use at a time. full: any order."""

Remainder = Literal["drop", "pad"]
"""What becomes of the samples that do not fill an epoch's last global batch. drop: left out of this epoch (every epoch
leaves out others). pad: filled up with the first samples of the same epoch."""


@dataclass(frozen=True, kw_only=True)
class OrderConfig:
    """The order of the training samples in every epoch; it depends on the data's seed too.

    Attributes:
        shuffle: how much of it is random.
        block_shards: shards that are in use at a time with `shuffle` "block".
        remainder: what becomes of samples that do not fill an epoch's last global batch.

    Raises:
        ConfigError: a number out of range.
    """

    shuffle: Shuffle = "full"
    block_shards: int = 8
    remainder: Remainder = "drop"

    def __post_init__(self) -> None:
        if self.block_shards < 1:
            raise ConfigError(f"order.block_shards is {self.block_shards}", hint="give at least 1")


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where training stands: samples that all processes have finished.

    Attributes:
        epoch: the epoch of the next sample, from 0.
        samples: finished in that epoch.
        consumed: finished since the start of training.
    """

    epoch: int = 0
    samples: int = 0
    consumed: int = field(default=0, metadata={"key": "samples_consumed"})


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Consecutive samples of the stream: of a global batch, or of one process's part of it.

    Attributes:
        epoch: of the stream.
        numbers: of the samples, int64.
        passes: how often each one's own shard set has been gone through before; None where that is `epoch` for all.
    """

    epoch: int
    numbers: Int[np.ndarray, "samples"]
    passes: Int[np.ndarray, "samples"] | None = None

    def __len__(self) -> int:
        return len(self.numbers)


Permutation = Int[np.ndarray, "samples"] | KeyedPermutation | KeyedShardOrder
"""All sample numbers in an epoch's order: by slices and arrays of places."""

COMPUTED_FROM = 2**27
"""Sets of so many samples and more have orders that are computed by number: as an array one would take a gigabyte in
every process, and seconds at every start."""


class SampleStream(ABC):
    """An endless stream of samples, epoch after epoch, from which whole global batches are taken."""

    num_samples: int
    """Samples of an epoch, before the remainder."""

    @abstractmethod
    def usable(self, first: int, global_batch: int) -> int:
        """Samples of the whole global batches from sample `first` of an epoch to its end."""

    @abstractmethod
    def take(self, position: Position, count: int, *, skip: int = 0) -> Samples:
        """The next `count` samples, which lie in one epoch: O(count), wherever the position is.

        Args:
            position: from where.
            count: samples.
            skip: samples that are passed over first, of the same epoch.
        """

    @abstractmethod
    def describe(self) -> str:
        """What the order depends on, in words: two streams of the same description are the same."""

    def advance(self, position: Position, count: int, global_batch: int) -> Position:
        """The position after `count` more samples, in O(1).

        Args:
            position: from where.
            count: samples, 0 or more: of whole global batches.
            global_batch: samples of an optimizer step.
        """
        whole, samples = self.usable(0, global_batch), position.samples + count
        rest, epoch = self.usable(position.samples, global_batch), position.epoch
        if count >= rest:
            epochs, samples = divmod(count - rest, whole)
            epoch += 1 + epochs
        return Position(epoch=epoch, samples=samples, consumed=position.consumed + count)


class EpochOrder(SampleStream):
    """The samples of one shard set, a permutation in each epoch.

    Args:
        shard_sizes: samples of each shard; those of a shard have consecutive numbers.
        seed: of the permutations.
        shuffle: what is permuted.
        block_shards: shards of a window of `shuffle` "block".
        remainder: what becomes of samples that do not fill the last global batch.
    """

    def __init__(
        self,
        shard_sizes: Sequence[int],
        *,
        seed: int = 0,
        shuffle: Shuffle = "full",
        block_shards: int = 8,
        remainder: Remainder = "drop",
    ) -> None:
        self.shard_sizes = np.asarray(shard_sizes, dtype=np.int64)
        self.num_samples = int(self.shard_sizes.sum())
        self.seed = seed
        self.shuffle = shuffle
        self.block_shards = block_shards
        self.remainder = remainder
        # Two, since a pass over one of several mixed sets ends within a batch.
        self.permutation = lru_cache(maxsize=2)(self._permutation)

    def usable(self, first: int, global_batch: int) -> int:
        left = max(0, self.num_samples - first)
        batches = left // global_batch if self.remainder == "drop" else -(-left // global_batch)
        return batches * global_batch

    def take(self, position: Position, count: int, *, skip: int = 0) -> Samples:
        """The next samples, from this set's order of the position's epoch.

        Args:
            position: from where.
            count: samples.
            skip: samples that are passed over first, of the same epoch.
        """
        order, first = self.permutation(position.epoch), position.samples + skip
        numbers = order[first : first + count]
        if len(numbers) < count:
            assert self.remainder == "pad", "only padding goes beyond an epoch's end"
            numbers = order[np.arange(first, first + count) % self.num_samples]
        return Samples(epoch=position.epoch, numbers=numbers)

    def describe(self) -> str:
        what = f"block of {self.block_shards}" if self.shuffle == "block" else self.shuffle
        sizes = crc32(self.shard_sizes.tobytes())
        return (
            f"{self.num_samples} samples in {len(self.shard_sizes)} shards ({sizes:08x}), "
            f"shuffle {what}, seed {self.seed}, remainder {self.remainder}"
        )

    def _permutation(self, epoch: int) -> Permutation:
        """All sample numbers in the order of `epoch`, int64."""
        if self.num_samples >= COMPUTED_FROM:
            return self._computed(epoch)
        if self.shuffle == "none":
            return np.arange(self.num_samples)
        # `num_samples` is no sample's number, so this stream is not that of any sample's augmentation.
        rng = np.random.default_rng((self.seed, epoch, self.num_samples))
        if self.shuffle == "full":
            return rng.permutation(self.num_samples)
        shards = rng.permutation(len(self.shard_sizes))
        sizes = self.shard_sizes[shards]
        ends = np.cumsum(sizes)
        firsts = (np.cumsum(self.shard_sizes) - self.shard_sizes)[shards]
        order = np.arange(self.num_samples) + np.repeat(firsts - (ends - sizes), sizes)
        if self.shuffle == "block":
            start = 0
            for end in [*ends[self.block_shards - 1 :: self.block_shards].tolist(), self.num_samples]:
                rng.shuffle(order[start:end])
                start = end
        return order

    def _computed(self, epoch: int) -> KeyedPermutation | KeyedShardOrder:
        """The same kinds of order, computed by number; other numbers than the arrays'."""
        key = (self.seed, epoch, self.num_samples)
        if self.shuffle == "full":
            return KeyedPermutation(self.num_samples, key)
        shards, window = np.arange(len(self.shard_sizes)), 0
        if self.shuffle != "none":
            shards = np.random.default_rng(key).permutation(len(self.shard_sizes))
            window = self.block_shards if self.shuffle == "block" else 0
        return KeyedShardOrder(self.shard_sizes, shards, key, window)


def check_size(stream: SampleStream, global_batch: int) -> None:
    """Refuses a global batch that an epoch does not fill.

    Raises:
        ConfigError: no sample, or fewer than a global batch and no padding.
    """
    if stream.num_samples == 0:
        raise ConfigError("the training set holds no samples", hint="give shards with samples in them")
    if stream.usable(0, global_batch) == 0:
        problem = f"{stream.num_samples} samples are fewer than a global batch of {global_batch}"
        raise ConfigError(problem, hint="use a smaller batch, more samples, or remainder: pad")
