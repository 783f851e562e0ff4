"""Permutations that are computed number by number: each number once, any place alone, and well mixed."""

import numpy as np
import pytest

from framework.data.sampling.permutation import KeyedPermutation, KeyedShardOrder


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 4096])
def test_each_number_once(size: int):
    assert sorted(KeyedPermutation(size, (7, 0))[:].tolist()) == list(range(size))


def test_another_key_is_another_permutation():
    keys = [(0, 0), (1, 0), (0, 1), (0, 0, 1)]
    assert len({tuple(KeyedPermutation(100, key)[:].tolist()) for key in keys}) == 4


def test_places_can_be_asked_for_alone_and_again():
    permutation = KeyedPermutation(1000, (3,))
    places = np.array([999, 0, 17, 17])
    assert permutation[places].tolist() == permutation[:][places].tolist()
    assert permutation[990:2000].tolist() == permutation[:][990:].tolist()


def test_well_mixed():
    """As random permutations are: places and numbers do not correlate, neighbours are not neighbours."""
    size, count = 2**34 + 5, 20_000
    numbers = KeyedPermutation(size, (0, 0))[np.arange(count)].astype(np.float64) / size
    # Of 20,000 uniform numbers: standard errors 0.002, 0.0021 and 0.007.
    assert abs(numbers.mean() - 0.5) < 0.01
    assert abs(numbers.var() - 1 / 12) < 0.003
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.03
    assert abs(np.corrcoef(np.arange(count), numbers)[0, 1]) < 0.03
    # 20,000 in 100 equal parts: chi-square with 99 degrees of freedom, of which 160 has a probability of 1e-4.
    counts = np.histogram(numbers, bins=100, range=(0, 1))[0]
    assert ((counts - 200) ** 2 / 200).sum() < 160


def test_every_first_number_is_as_likely():
    firsts = [int(KeyedPermutation(10, (seed,))[np.array([0])][0]) for seed in range(2000)]
    counts = np.bincount(firsts, minlength=10)
    # 9 degrees of freedom: 34 has a probability of 1e-4.
    assert ((counts - 200) ** 2 / 200).sum() < 34


def test_shards_by_window():
    """Two windows of two shards: the first window's samples come first, each once, mixed."""
    sizes, shards = np.array([3, 4, 2, 5]), np.array([2, 0, 3, 1])
    plain = KeyedShardOrder(sizes, shards, (0,), 0)
    assert plain[:].tolist() == [7, 8, 0, 1, 2, 9, 10, 11, 12, 13, 3, 4, 5, 6]
    mixed = KeyedShardOrder(sizes, shards, (0,), 2)
    assert sorted(mixed[:5].tolist()) == [0, 1, 2, 7, 8]
    assert sorted(mixed[5:].tolist()) == [3, 4, 5, 6, 9, 10, 11, 12, 13]
    assert mixed[:].tolist() != plain[:].tolist()
    assert mixed[np.array([6, 2])].tolist() == mixed[:][[6, 2]].tolist()
