"""The order is a permutation an epoch, a pure function, and the same stream from wherever it starts."""

from itertools import islice

import pytest

from framework.data.order import SampleOrder
from framework.errors import ConfigError


def make(**changes) -> SampleOrder:
    return SampleOrder(**{"num_samples": 23, "batch_size": 4, "seed": 3, **changes})


def stream(order: SampleOrder, consumed: int, count: int) -> list[tuple[int, int]]:
    return list(islice(order.stream(consumed), count))


def test_each_epoch_is_another_permutation():
    order = make()
    epochs = [order.epoch_order(epoch).tolist() for epoch in range(5)]
    assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5
    assert list(order) == [(0, number) for number in epochs[0][:20]]
    assert (len(order), order.epoch_samples) == (20, 20)


def test_order_is_a_pure_function():
    assert stream(make(), 0, 100) == stream(make(), 0, 100)
    assert stream(make(), 0, 100) != stream(make(seed=4), 0, 100)
    order = make()
    assert list(order) == list(order)


def test_without_shuffling_it_is_that_of_the_shards():
    assert stream(make(shuffle=False), 16, 6) == [(0, 16), (0, 17), (0, 18), (0, 19), (1, 0), (1, 1)]


@pytest.mark.parametrize("batches", range(12))
def test_from_any_batch_it_is_the_tail(batches: int):
    consumed = batches * 4
    whole = stream(make(), 0, 100)
    assert stream(make(), consumed, 100 - consumed) == whole[consumed:]
    resumed = make(consumed=lambda: consumed)
    assert list(resumed) == whole[consumed : consumed + 20]


@pytest.mark.parametrize("consumed", [0, 8, 20, 28])
def test_processes_share_every_global_batch(consumed: int):
    whole = stream(make(), consumed, 40)
    halves = [make(batch_size=2, rank=rank, num_ranks=2) for rank in range(2)]
    assert [len(half) for half in halves] == [10, 10]
    parts = [stream(half, consumed, 20) for half in halves]
    joined = [
        sample for at in range(0, 20, 2) for part in parts for sample in part[at : at + 2]
    ]  # The two halves of each global batch.
    assert joined == whole


def test_fewer_samples_than_a_batch():
    with pytest.raises(ConfigError, match="23 samples are fewer than a batch of 12 for 2 process"):
        make(batch_size=12, num_ranks=2)
    assert len(make(batch_size=23)) == 23
