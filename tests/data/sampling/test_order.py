"""The order is a permutation an epoch, a pure function, and the same stream from wherever it starts."""

import time

import numpy as np
import pytest

from framework.core.errors import ConfigError
from framework.data.sampling import order as order_module
from framework.data.sampling.order import EpochOrder, Position, Remainder, Shuffle, check_size

SIZES = (5, 1, 7, 0, 4, 6)
SHUFFLES: tuple[Shuffle, ...] = ("none", "shards", "block", "full")


def make(**changes) -> EpochOrder:
    return EpochOrder(SIZES, **{"seed": 3, "block_shards": 2, **changes})


@pytest.fixture(params=["array", "computed"])
def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Orders as arrays, as small sets have them, and computed number by number, as large ones do."""
    if request.param == "computed":
        monkeypatch.setattr(order_module, "COMPUTED_FROM", 0)
    return request.param


def numbers_of(order: EpochOrder, epoch: int) -> np.ndarray:
    return order.permutation(epoch)[:]


def shard_of(numbers: np.ndarray) -> list[int]:
    return np.repeat(np.arange(len(SIZES)), SIZES)[numbers].tolist()


def runs(values: list[int]) -> list[int]:
    """The values without those that follow an equal one."""
    return [value for at, value in enumerate(values) if at == 0 or values[at - 1] != value]


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_each_epoch_is_a_permutation_and_a_pure_function(shuffle: Shuffle, kept: str):
    order = make(shuffle=shuffle)
    epochs = [numbers_of(order, epoch).tolist() for epoch in range(5)]
    assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == (1 if shuffle == "none" else 5)
    assert [numbers_of(make(shuffle=shuffle), epoch).tolist() for epoch in reversed(range(5))] == epochs[::-1]
    other = [numbers_of(make(shuffle=shuffle, seed=4), epoch).tolist() for epoch in range(5)]
    assert (other == epochs) == (shuffle == "none")


def test_shards_in_any_order_keep_theirs_inside(kept: str):
    orders = set()
    for epoch in range(5):
        numbers = numbers_of(make(shuffle="shards"), epoch)
        shards = runs(shard_of(numbers))
        orders.add(tuple(shards))
        assert sorted(shards) == [0, 1, 2, 4, 5]
        for shard in shards:
            inside = [number for number in numbers.tolist() if shard_of(np.array([number])) == [shard]]
            assert inside == sorted(inside)
    assert len(orders) == 5


@pytest.mark.parametrize("block_shards", [1, 2, 4, 6, 100])
def test_few_shards_of_a_block_are_in_use_at_a_time(block_shards: int, kept: str):
    order = make(shuffle="block", block_shards=block_shards)
    for epoch in range(5):
        shards = shard_of(numbers_of(order, epoch))
        first = {shard: shards.index(shard) for shard in shards}
        last = {shard: 22 - shards[::-1].index(shard) for shard in shards}
        in_use = [sum(first[shard] <= at <= last[shard] for shard in first) for at in range(23)]
        assert max(in_use) <= block_shards
        assert max(in_use) > 1 or block_shards == 1


def test_a_block_mixes_its_shards(kept: str):
    order = EpochOrder([100] * 10, shuffle="block", block_shards=5)
    first = numbers_of(order, 0)[:500]
    assert len(set((first // 100).tolist())) == 5
    assert len(set((first[:50] // 100).tolist())) == 5
    assert len(set((numbers_of(order, 0)[500:] // 100).tolist())) == 5


@pytest.mark.parametrize(("remainder", "usable"), [("drop", [20, 20, 16, 0]), ("pad", [24, 20, 20, 4])])
def test_remainder(remainder: Remainder, usable: list[int]):
    order = make(remainder=remainder)
    assert [order.usable(first, 4) for first in (0, 3, 4, 20)] == usable
    assert order.usable(23, 4) == 0


def test_padding_is_the_epochs_first_samples(kept: str):
    order = make(remainder="pad")
    first, last = (order.take(Position(epoch=2, samples=at), 4).numbers.tolist() for at in (0, 20))
    assert last == [*numbers_of(order, 2)[20:].tolist(), first[0]]
    assert order.take(Position(epoch=2), 50).numbers.tolist() == [*numbers_of(order, 2).tolist()] * 2 + first


@pytest.mark.parametrize("remainder", ["drop", "pad"])
@pytest.mark.parametrize("start", [Position(), Position(epoch=3, samples=7, consumed=70)], ids=["0", "7"])
def test_advancing_at_once_is_advancing_step_by_step(remainder: Remainder, start: Position):
    order, position = make(remainder=remainder), start
    for steps in range(30):
        assert order.advance(start, steps * 4, 4) == position
        position = order.advance(position, 4, 4)
    assert position.consumed == start.consumed + 120


def test_description_tells_orders_apart():
    changes = [{}, {"seed": 4}, {"shuffle": "none"}, {"shuffle": "block"}, {"remainder": "pad"}]
    changes.append({"shuffle": "block", "block_shards": 3})
    descriptions = {make(**change).describe() for change in changes}
    descriptions.add(EpochOrder(SIZES[::-1], seed=3).describe())
    assert len(descriptions) == 7
    assert make().describe() == make().describe()


def test_too_few_samples():
    with pytest.raises(ConfigError, match=r"23 samples are fewer than a global batch of 24: .*remainder: pad"):
        check_size(make(), 24)
    check_size(make(), 23)
    check_size(make(remainder="pad"), 24)
    with pytest.raises(ConfigError, match="the training set holds no samples"):
        check_size(EpochOrder([0], remainder="pad"), 1)


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_imagenet_starts_anywhere_in_under_a_second(shuffle: Shuffle):
    started = time.perf_counter()
    order = EpochOrder([4096] * 317, shuffle=shuffle)
    position = order.advance(Position(), 10**9 // 256 * 256, 256)
    samples = order.take(position, 256)
    seconds = time.perf_counter() - started
    assert len(samples) == 256
    assert seconds < 1


def test_large_sets_are_ordered_number_by_number():
    sizes = [10_000] * 100_000
    for shuffle in SHUFFLES:
        order = EpochOrder(sizes, shuffle=shuffle)
        samples = order.take(Position(epoch=3, samples=700_000_000), 512).numbers
        assert len(set(samples.tolist())) == 512
        assert samples.min() >= 0
        assert samples.max() < 10**9
