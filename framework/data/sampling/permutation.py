"""Permutations that are computed number by number, for sets whose permutation would not fit into memory (ours).

A Feistel network (Luby and Rackoff 1988) permutes the numbers below a power of four; numbers that it sends beyond the
set are sent on until they fall into it (cycle walking; Black and Rogaway 2002). Any place costs the same; nothing is
kept.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt64

Numbers = Int[np.ndarray, "places"]
_Words = UInt64[np.ndarray, "words"]

_ROUNDS = 6
"""Four are a pseudorandom permutation if the rounds' functions are random; two more, since these only mix well."""


class KeyedPermutation:
    """A permutation of the numbers from 0 to `size`, a function of its key.

    Args:
        size: how many numbers, from 1 to 2^62.
        key: whole numbers from 0; other ones are another permutation.
    """

    def __init__(self, size: int, key: Sequence[int]) -> None:
        self.size = size
        self._half = np.uint64(max(1, -(-max(1, (size - 1).bit_length()) // 2)))
        self._mask = np.uint64((1 << int(self._half)) - 1)
        self._keys: _Words = np.random.SeedSequence(key).generate_state(_ROUNDS, np.uint64)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, places: slice | Numbers) -> Numbers:
        """The numbers at places, int64; of a slice those that are there."""
        if isinstance(places, slice):
            places = np.arange(*places.indices(self.size))
        values = places.astype(np.uint64)
        walking = np.arange(len(values))
        while len(walking):
            values[walking] = self._network(values[walking])
            walking = walking[values[walking] >= self.size]
        return values.astype(np.int64)

    def _network(self, values: _Words) -> _Words:
        left, right = values >> self._half, values & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right ^ key) & self._mask)
        return (left << self._half) | right


def _mix(values: _Words) -> _Words:
    """Spreads every bit over all (the finaliser of SplitMix64, Steele et al. 2014); overflow is meant."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class KeyedShardOrder:
    """All samples of shards in an order that is random by shards, and within windows of them; computed by number.

    Args:
        shard_sizes: samples of each shard; those of a shard have consecutive numbers.
        shards: the shards' order.
        key: of the permutations within windows.
        window: shards whose samples are permuted together; 0 leaves all as they are in their shards.
    """

    def __init__(
        self, shard_sizes: Int[np.ndarray, "shards"], shards: Int[np.ndarray, "shards"], key: Sequence[int], window: int
    ) -> None:
        sizes = shard_sizes[shards]
        self._ends = np.cumsum(sizes)
        self._firsts = (np.cumsum(shard_sizes) - shard_sizes)[shards]
        self._starts = self._ends - sizes
        self._key, self._window = tuple(key), window

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, places: slice | Numbers) -> Numbers:
        """The numbers at places, int64; of a slice those that are there."""
        if isinstance(places, slice):
            places = np.arange(*places.indices(len(self)))
        if self._window:
            places = self._shuffled(places)
        shard = np.searchsorted(self._ends, places, side="right")
        return self._firsts[shard] + places - self._starts[shard]

    def _shuffled(self, places: Numbers) -> Numbers:
        """Each place's substitute within its window."""
        ends = np.append(self._ends[self._window - 1 : -1 : self._window], self._ends[-1])
        windows = np.searchsorted(ends, places, side="right")
        found = np.empty_like(places)
        for window in np.unique(windows).tolist():
            here = windows == window
            start = int(ends[window - 1]) if window else 0
            permutation = KeyedPermutation(int(ends[window]) - start, (*self._key, window))
            found[here] = permutation[places[here] - start] + start
        return found
