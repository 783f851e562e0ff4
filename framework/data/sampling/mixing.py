"""Several shard sets as one: joined under one numbering, and mixed by weights.

The rule of the mixture: weights become whole parts of at most `PARTS`; a fixed pattern spreads every set's parts as
evenly as can be, and repeats for ever. Each set gives its own samples in its own order, one pass after another,
whatever the others do; so the next sample of each set follows from the number of samples consumed alone. An epoch of
the mixture has as many samples as the sets have together, cut to whole global batches; the next epoch goes on where it
ended, so there is no remainder to drop or pad.
"""

from collections.abc import Iterator, Sequence
from math import gcd

import numpy as np
from jaxtyping import Int

from framework.core.errors import ConfigError
from framework.data.sampling.order import EpochOrder, Position, Samples, SampleStream
from framework.data.shards.reader import ShardSet

PARTS = 1000
"""Weights are rounded to this many parts."""


class Mixture(SampleStream):
    """Samples of several sets, in the proportions of their weights.

    The sets' samples are numbered as `JoinedShards` does.

    Args:
        orders: of each set.
        weights: of each set, above 0; only their proportions count.

    Raises:
        ConfigError: a weight that is not above 0, or so small that it rounds to nothing.
    """

    def __init__(self, orders: Sequence[EpochOrder], weights: Sequence[float]) -> None:
        self.orders = tuple(orders)
        self.num_samples = sum(order.num_samples for order in orders)
        self.parts = whole_parts(weights)
        times = np.concatenate([(np.arange(count) + 0.5) / count for count in self.parts])
        which = np.repeat(np.arange(len(self.parts)), self.parts)
        self._pattern = which[np.argsort(times, kind="stable")]
        # How many of its set come before each place of the pattern.
        self._before = np.zeros_like(self._pattern)
        for number, count in enumerate(self.parts):
            self._before[self._pattern == number] = np.arange(count)
        self._firsts = np.cumsum([0, *(order.num_samples for order in orders)])

    def usable(self, first: int, global_batch: int) -> int:
        return max(0, self.num_samples - first) // global_batch * global_batch

    def take(self, position: Position, count: int, *, skip: int = 0) -> Samples:
        """The next samples, of each set in its own order.

        Args:
            position: from where.
            count: samples.
            skip: samples that are passed over first, of the same epoch.
        """
        rounds, places = np.divmod(position.consumed + skip + np.arange(count), len(self._pattern))
        sets = self._pattern[places]
        numbers, passes = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        for number, order in enumerate(self.orders):
            chosen = np.flatnonzero(sets == number)
            nth = rounds[chosen] * self.parts[number] + self._before[places[chosen]]
            passes[chosen], at = np.divmod(nth, order.num_samples)
            for each in np.unique(passes[chosen]).tolist():
                here = passes[chosen] == each
                numbers[chosen[here]] = order.permutation(each)[at[here]] + self._firsts[number]
        return Samples(epoch=position.epoch, numbers=numbers, passes=passes)

    def describe(self) -> str:
        return " + ".join(f"{part} x ({order.describe()})" for part, order in zip(self.parts, self.orders, strict=True))


def whole_parts(weights: Sequence[float]) -> Int[np.ndarray, "sets"]:
    """The weights as whole numbers in their lowest terms, after rounding to `PARTS` parts (largest remainders).

    Raises:
        ConfigError: a weight that is not above 0, or so small that it rounds to nothing.
    """
    given = np.asarray(weights, dtype=np.float64)
    if not (np.isfinite(given) & (given > 0)).all():
        raise ConfigError(f"a weight of data.train is {min(weights)}", hint="give weights above 0")
    exact = given / given.sum() * PARTS
    parts = np.floor(exact + 1e-9).astype(np.int64)
    short = PARTS - int(parts.sum())
    parts[np.argsort(parts - exact, kind="stable")[:short]] += 1
    if (parts == 0).any():
        problem = f"weight {given[parts == 0][0]:g} is less than half a {PARTS}th of the sum {given.sum():g}"
        raise ConfigError(problem, hint="give it more, or leave the set out")
    return parts // gcd(*parts.tolist())


class JoinedShards:
    """Shard sets under one numbering: those of the first set, then those of the second, and so on.

    Args:
        sets: at least one.
    """

    def __init__(self, sets: Sequence[ShardSet]) -> None:
        self.sets = tuple(sets)
        self._ends = np.cumsum([len(each) for each in sets])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, number: int) -> tuple[bytes, int]:
        """A sample's bytes and label, as `ShardSet.read`."""
        shards, local = self._locate(number)
        return shards.read(local)

    def read_many(self, numbers: Int[np.ndarray, "samples"]) -> Iterator[tuple[int, bytes | None]]:
        """Places in `numbers` and the bytes of the samples there, as `ShardSet.read_many`."""
        if len(self.sets) == 1:
            yield from self.sets[0].read_many(numbers)
            return
        for chosen, shards, local in self._by_set(numbers):
            places = chosen.tolist()
            for place, data in shards.read_many(local):
                yield places[place], data

    def labels(self, numbers: Int[np.ndarray, "samples"]) -> Int[np.ndarray, "samples"]:
        """The labels of samples."""
        if len(self.sets) == 1:
            return self.sets[0].labels(numbers)
        labels = np.empty(len(numbers), dtype=np.int64)
        for chosen, shards, local in self._by_set(numbers):
            labels[chosen] = shards.labels(local)
        return labels

    def describe(self, number: int) -> str:
        """A sample in words, for messages."""
        shards, local = self._locate(number)
        return shards.describe(local)

    def set_of(self, number: int) -> int:
        """Which of the sets a sample belongs to, from 0."""
        return 0 if len(self.sets) == 1 else int(np.searchsorted(self._ends, number, side="right"))

    def following(self, number: int) -> int:
        """The number after this one in the same set, the first after the last."""
        shards, local = self._locate(number)
        return number - local + (local + 1) % len(shards)

    @property
    def is_remote(self) -> bool:
        """Whether a set has to be fetched."""
        return any("://" in str(each.path) for each in self.sets)

    def prefetch(self, numbers: Int[np.ndarray, "samples"]) -> None:
        """Has the shards of samples fetched in the background, in the order of the samples."""
        for _, shards, local in self._by_set(numbers):
            _, firsts = np.unique(shards.index[local, 0], return_index=True)
            shards.prefetch(shards.index[local[np.sort(firsts)], 0].tolist())

    def _by_set(
        self, numbers: Int[np.ndarray, "samples"]
    ) -> Iterator[tuple[Int[np.ndarray, "chosen"], ShardSet, Int[np.ndarray, "chosen"]]]:
        """Places in `numbers` of the samples of each set, the set, and their numbers in it."""
        which = np.searchsorted(self._ends, numbers, side="right")
        for number, shards in enumerate(self.sets):
            chosen = np.flatnonzero(which == number)
            if not len(chosen):
                continue
            yield chosen, shards, numbers[chosen] - (self._ends[number] - len(shards))

    def _locate(self, number: int) -> tuple[ShardSet, int]:
        if len(self.sets) == 1:
            return self.sets[0], number
        which = self.set_of(number)
        return self.sets[which], number - int(self._ends[which]) + len(self.sets[which])


class LookAhead:
    """Has remote shards fetched before their samples are needed.

    Every process of a node asks for the same ones; the cache fetches each once.

    Args:
        shards: the sets; nothing is done for local ones.
        block_shards: about how many shards to look ahead over.
    """

    def __init__(self, shards: JoinedShards, *, block_shards: int) -> None:
        self._shards = shards
        num_shards = sum(len(each.manifest.shards) for each in shards.sets) if shards.is_remote else 0
        self._reach = -(-len(shards) * block_shards // num_shards) if num_shards else 0
        self._next = 0

    def at(self, stream: SampleStream, position: Position, global_batch: int) -> None:
        """Looks ahead from `position`, unless it has done so shortly before.

        Args:
            stream: the order of the samples.
            position: where training stands.
            global_batch: samples of an optimizer step.
        """
        # A position behind the last one is a new iteration.
        if not self._reach or self._next - self._reach <= position.consumed < self._next:
            return
        self._next = position.consumed + max(1, self._reach // 4)
        wanted = max(2 * self._reach, global_batch)
        numbers = []
        while wanted > 0:
            count = min(wanted, stream.usable(position.samples, global_batch))
            numbers.append(stream.take(position, count).numbers)
            position = stream.advance(position, count, global_batch)
            wanted -= count
        self._shards.prefetch(np.concatenate(numbers))
