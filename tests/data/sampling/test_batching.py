"""Every step has the same samples, however many processes and micro-batches make it, through any chain of resumes."""

import random
from itertools import islice

import pytest

from framework.core.errors import ConfigError
from framework.data.sampling.batching import BatchPlan, MicroBatches, needed_accumulation
from framework.data.sampling.mixing import Mixture
from framework.data.sampling.order import EpochOrder, Position, Remainder, SampleStream, Shuffle

GLOBAL_BATCH = 16
TOPOLOGIES = [(ranks, accumulation) for ranks in (1, 2, 4, 8) for accumulation in (1, 2)]
Sample = tuple[int, int, int]


def stream_of(kind: str, remainder: Remainder = "drop") -> SampleStream:
    shuffle: Shuffle = "block" if kind == "mixture" else kind  # type: ignore[assignment]
    orders = [
        EpochOrder(sizes, seed=5, shuffle=shuffle, block_shards=2, remainder=remainder)
        for sizes in ((20, 30, 17, 40, 3), (9, 9), (64,))
    ]
    return Mixture(orders, [0.5, 0.2, 0.3]) if kind == "mixture" else orders[0]


def steps_of(stream: SampleStream, ranks: int, accumulation: int, start: Position, count: int) -> list[list[Sample]]:
    """The samples of each of `count` steps, in the order of micro-steps and, in them, of processes."""
    per_rank = []
    for rank in range(ranks):
        micro_batch = GLOBAL_BATCH // ranks // accumulation
        plan = BatchPlan(micro_batch=micro_batch, num_ranks=ranks, rank=rank, accumulation=accumulation)
        assert plan.global_batch == GLOBAL_BATCH
        batches = MicroBatches(stream, plan, lambda: start).batches(start)
        per_rank.append([samples_of(batch) for batch in islice(batches, count * accumulation)])
    return [
        [
            sample
            for micro in range(step * accumulation, (step + 1) * accumulation)
            for rank in range(ranks)
            for sample in per_rank[rank][micro]
        ]
        for step in range(count)
    ]


def samples_of(batch) -> list[Sample]:
    passes = [batch.epoch] * len(batch) if batch.passes is None else batch.passes.tolist()
    return [(batch.epoch, passed, number) for passed, number in zip(passes, batch.numbers.tolist(), strict=True)]


@pytest.mark.parametrize("remainder", ["drop", "pad"])
@pytest.mark.parametrize("kind", ["none", "shards", "block", "full", "mixture"])
def test_every_topology_makes_the_same_steps(kind: str, remainder: Remainder):
    stream = stream_of(kind, remainder)
    whole = steps_of(stream, 1, 1, Position(), 20)
    for ranks, accumulation in TOPOLOGIES:
        assert steps_of(stream, ranks, accumulation, Position(), 20) == whole


@pytest.mark.parametrize("kind", ["block", "full", "mixture"])
def test_fifty_kills_and_resumes_on_other_topologies(kind: str):
    stream, draw = stream_of(kind), random.Random(kind)
    whole = steps_of(stream, 1, 1, Position(), 500)
    position, seen = Position(), []
    for kill in range(50):
        ranks, accumulation = TOPOLOGIES[draw.randrange(len(TOPOLOGIES))] if kill else (4, 1)
        steps = draw.randrange(10)
        seen += steps_of(stream_of(kind), ranks, accumulation, position, steps)
        position = stream.advance(position, steps * GLOBAL_BATCH, GLOBAL_BATCH)
    assert len(seen) > 100
    assert seen == whole[: len(seen)]
    if kind != "mixture":
        epochs = [sample for step in seen for sample in step]
        for epoch in range(seen[-1][0][0]):
            numbers = [number for of, _, number in epochs if of == epoch]
            assert len(set(numbers)) == len(numbers) == stream.usable(0, GLOBAL_BATCH)


def test_an_iteration_is_as_long_as_an_epoch():
    stream = stream_of("full")
    plan = BatchPlan(micro_batch=4, num_ranks=2, rank=1, accumulation=2)
    order = MicroBatches(stream, plan, lambda: Position(epoch=1, samples=64, consumed=160))
    assert len(order) == len(list(order)) == 12
    assert [batch.epoch for batch in order] == [1] * 4 + [2] * 8


def test_what_a_smaller_global_batch_left_is_skipped():
    stream, plan = stream_of("full"), BatchPlan(micro_batch=16)
    batch = next(MicroBatches(stream, plan).batches(Position(epoch=1, samples=108, consumed=108)))
    assert (batch.epoch, batch.numbers.tolist()) == (2, stream.permutation(2)[:16].tolist())


@pytest.mark.parametrize(
    ("wanted", "micro_batch", "num_ranks", "given", "expected"),
    [
        (64, 8, 4, 1, 2),
        (64, 8, 4, 2, 2),
        (32, 8, 4, 1, 1),
        (60, 8, 4, 1, r"60 is not a multiple of batch_size 8 x 4 process\(es\): use 32 or 64, or another"),
        (31, 8, 4, 1, "use 32, or another"),
        (64, 8, 4, 4, r"accumulate_grad_batches 4: leave .* out \(2 follows\), or use 128"),
    ],
)
def test_accumulation_for_a_global_batch(wanted, micro_batch, num_ranks, given, expected):
    if isinstance(expected, int):
        found = needed_accumulation(wanted, micro_batch=micro_batch, num_ranks=num_ranks, given=given)
        assert found == expected
        return
    with pytest.raises(ConfigError, match=expected):
        needed_accumulation(wanted, micro_batch=micro_batch, num_ranks=num_ranks, given=given)


def test_too_few_samples():
    with pytest.raises(ConfigError, match="110 samples are fewer than a global batch of 128"):
        MicroBatches(stream_of("full"), BatchPlan(micro_batch=32, num_ranks=2, accumulation=2))
