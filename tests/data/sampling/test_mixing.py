"""Sets are mixed as their weights say, at every length, and each goes through all of its samples pass after pass."""

import pickle
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from framework.core.errors import ConfigError
from framework.data.sampling.batching import BatchPlan, MicroBatches
from framework.data.sampling.mixing import JoinedShards, LookAhead, Mixture, whole_parts
from framework.data.sampling.order import EpochOrder, Position
from framework.data.shards.reader import ShardSet
from framework.testing.images import make_image_shards

SIZES = ((5, 6), (3,), (8, 8, 4))
FIRSTS = (0, 11, 14, 34)


def make(weights=(2.0, 1.0, 1.0), **changes) -> Mixture:
    return Mixture([EpochOrder(sizes, **{"seed": 1, **changes}) for sizes in SIZES], weights)


def taken(mixture: Mixture, consumed: int, count: int) -> list[tuple[int, int]]:
    samples = mixture.take(Position(consumed=consumed), count)
    assert samples.passes is not None
    return list(zip(samples.passes.tolist(), samples.numbers.tolist(), strict=True))


@pytest.mark.parametrize(
    ("weights", "parts"),
    [
        ([1.0], [1]),
        ([2.0, 1.0, 1.0], [2, 1, 1]),
        ([0.7, 0.3], [7, 3]),
        ([1.0, 1.0, 1.0], [334, 333, 333]),
        ([0.999, 0.001], [999, 1]),
        ([1e6, 3e6], [1, 3]),
    ],
)
def test_parts_of_weights(weights: list[float], parts: list[int]):
    assert whole_parts(weights).tolist() == parts


@pytest.mark.parametrize("weights", [[1.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [1.0, float("inf")], [1.0, 1e-9]])
def test_weights_that_cannot_be(weights: list[float]):
    with pytest.raises(ConfigError, match="weight"):
        whole_parts(weights)


def test_every_stretch_has_the_proportions():
    mixture = make((0.55, 0.3, 0.15))
    sets = np.searchsorted(FIRSTS, [number for _, number in taken(mixture, 0, 3000)], side="right") - 1
    for number, weight in enumerate((0.55, 0.3, 0.15)):
        counts = np.cumsum(sets == number)
        assert np.abs(counts - weight * np.arange(1, 3001)).max() <= 1


def test_each_set_goes_through_its_own_passes_in_its_own_order():
    mixture = make()
    stream = taken(mixture, 0, 400)
    for number, order in enumerate(mixture.orders):
        own = [(passed, n - FIRSTS[number]) for passed, n in stream if FIRSTS[number] <= n < FIRSTS[number + 1]]
        expected = [(passed, n) for passed in range(40) for n in order.permutation(passed).tolist()]
        assert own == expected[: len(own)]
        assert len(own) == 400 * mixture.parts[number] // 4


@pytest.mark.parametrize("consumed", [0, 1, 37, 250, 10**9])
def test_from_anywhere_it_is_the_tail(consumed: int):
    mixture = make((0.55, 0.3, 0.15))
    assert taken(make((0.55, 0.3, 0.15)), consumed, 100) == [
        sample for at in range(0, 100, 20) for sample in taken(mixture, consumed + at, 20)
    ]


def test_an_epoch_is_as_long_as_all_sets():
    mixture = make()
    assert (mixture.num_samples, mixture.usable(0, 4), mixture.usable(8, 4)) == (34, 32, 24)
    assert mixture.advance(Position(), 36, 4) == Position(epoch=1, samples=4, consumed=36)
    assert mixture.describe() != make((1.0, 1.0, 1.0)).describe() != make(seed=2).describe()


def test_joined_sets_have_one_numbering(tmp_path: Path):
    sets = []
    for number, per_class in enumerate((2, 3)):
        make_image_shards(tmp_path / str(number), per_class=per_class, samples_per_shard=3)
        sets.append(ShardSet(tmp_path / str(number) / "shards"))
    joined = JoinedShards(sets)
    assert len(joined) == 10
    assert [joined.read(n) for n in range(10)] == [each.read(n) for each in sets for n in range(len(each))]
    assert joined.describe(4) == sets[1].describe(0)
    assert [joined.set_of(number) for number in (0, 3, 4)] == [0, 0, 1]
    assert [joined.following(n) for n in (0, 3, 4, 9)] == [1, 0, 5, 4]
    assert pickle.loads(pickle.dumps(joined)).read(9) == sets[1].read(5)


class Remote(ShardSet):
    """Shards of 10 samples at a URL, of which nothing is fetched."""

    def __init__(self, num_shards: int) -> None:
        self.path = "memory://set"
        self.index = np.repeat(np.arange(num_shards), 10)[:, None]
        self.manifest = SimpleNamespace(shards=range(num_shards))  # type: ignore[assignment]
        self.asked: list[list[int]] = []

    def __len__(self) -> int:
        return len(self.index)

    def prefetch(self, shards: list[int]) -> None:
        self.asked.append(shards)


def test_shards_are_asked_for_in_the_order_of_their_samples_before_they_are_needed():
    sets = [Remote(12), Remote(5)]
    joined = JoinedShards(sets)
    orders = [EpochOrder([10] * len(each.manifest.shards), shuffle="shards") for each in sets]
    stream, plan = Mixture(orders, [2.0, 1.0]), BatchPlan(micro_batch=5)
    ahead = LookAhead(joined, block_shards=3)
    read: list[set[int]] = [set(), set()]
    for samples in islice(MicroBatches(stream, plan, ahead=ahead).batches(Position()), 60):
        for number in samples.numbers.tolist():
            which = int(number >= 120)
            read[which].add((number - 120 * which) // 10)
        for which, each in enumerate(sets):
            assert read[which] <= {shard for asked in each.asked for shard in asked}
    # Two thirds of 60 samples ahead, of the first set.
    first = [number // 10 for number in orders[0].permutation(0).tolist()]
    assert sets[0].asked[0] == list(dict.fromkeys(first))[:4]
    assert len(sets[0].asked) < 60


def test_local_shards_are_not_asked_for(tmp_path: Path):
    make_image_shards(tmp_path)
    joined = JoinedShards([ShardSet(tmp_path / "shards")])
    assert not joined.is_remote
    joined.prefetch = None  # type: ignore[assignment,method-assign]
    LookAhead(joined, block_shards=3).at(EpochOrder([4, 4]), Position(), 4)
