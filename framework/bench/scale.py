"""`framework bench scale`: what thousands of ranks cost, by simulation on one machine.

The order of the samples is asked for as ranks ask for it. The watchdog's ranks are connections to one real store, in
this process: what the store's process does for them is what rank 0's would do.
"""

import gc
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import torch.distributed as dist
from rich.table import Table

from framework.bench.record import machine_of, write_record
from framework.core.console import results, tracked
from framework.core.errors import ConfigError
from framework.core.serialization import to_json
from framework.data.sampling.batching import BatchPlan, MicroBatches
from framework.data.sampling.order import EpochOrder, Position, Samples, Shuffle
from framework.training.signs_of_life import Beat, SignsOfLife

_SHARD_SAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class OrderCost:
    """The order of one shuffle, for every rank.

    Attributes:
        shuffle: which.
        first_batch_seconds: from the shards' sizes to a first micro-batch in mid-epoch, the longest of the ranks'.
        step_microseconds: of a later micro-batch, the mean of the first rank's.
        memory_mib: by which a process has grown after the first epoch's end was crossed.
        shares: samples of each rank in the steps that were looked at: the least and the most.
        repeated: samples of these steps that more than one rank got.
    """

    shuffle: Shuffle
    first_batch_seconds: float
    step_microseconds: float
    memory_mib: float
    shares: tuple[int, int]
    repeated: int


@dataclass(frozen=True, kw_only=True)
class StoreCost:
    """The watchdog's traffic of so many ranks.

    Attributes:
        num_ranks: connections to the store.
        busy_share: of one processor's time, with a sign of life and a question of every rank each second.
        read_seconds: in which a late rank reads all others' signs.
        told_seconds: until every rank has asked and been told that all end.
    """

    num_ranks: int
    busy_share: float
    read_seconds: float
    told_seconds: float


def bench_scale(
    out: Path | None = None,
    *,
    num_samples: int = 10**9,
    num_ranks: int = 4096,
    micro_batch: int = 8,
    asked_ranks: int = 64,
    store_ranks: Sequence[int] = (64, 512),
) -> dict[str, Any]:
    """Simulates the data order and the watchdog of very many ranks.

    Args:
        out: JSON file for the numbers.
        num_samples: of the training set.
        num_ranks: that share the samples.
        micro_batch: samples of each rank.
        asked_ranks: ranks, spread evenly, that are asked for their first micro-batch.
        store_ranks: numbers of ranks whose watchdogs talk to one store.

    Returns:
        The numbers, as in the file.

    Raises:
        ConfigError: a number out of range.
    """
    if min(num_samples // (2 * num_ranks * micro_batch), num_ranks, micro_batch, asked_ranks, *store_ranks) < 1:
        problem = f"{num_samples} samples, {num_ranks} ranks, micro-batches of {micro_batch}, {asked_ranks} asked"
        raise ConfigError(problem, hint="use positive numbers, and samples for two steps or more")
    # What is only loaded once does not count as memory of the first order.
    measure_order("full", 10 * num_ranks * micro_batch, BatchPlan(micro_batch=micro_batch, num_ranks=num_ranks), 1)
    orders = [
        measure_order(shuffle, num_samples, BatchPlan(micro_batch=micro_batch, num_ranks=num_ranks), asked_ranks)
        for shuffle in tracked(get_args(Shuffle), "orders", bar=False)
    ]
    stores = [measure_store(ranks) for ranks in tracked(store_ranks, "stores", bar=False)]
    record: dict[str, Any] = {
        "machine": machine_of(),
        "num_samples": num_samples,
        "num_ranks": num_ranks,
        "micro_batch": micro_batch,
        "orders": to_json(orders),
        "stores": to_json(stores),
    }
    _show(orders, stores)
    write_record(out, record)
    return record


def measure_order(shuffle: Shuffle, num_samples: int, plan: BatchPlan, asked_ranks: int) -> OrderCost:
    """The cost of one order.

    Args:
        shuffle: which.
        num_samples: of the training set.
        plan: ranks and their micro-batches.
        asked_ranks: ranks that are asked for their first micro-batch.
    """
    before = _resident_mib()
    sizes = [_SHARD_SAMPLES] * -(-num_samples // _SHARD_SAMPLES)
    start = Position(samples=num_samples // 2 // plan.global_batch * plan.global_batch)
    longest = 0.0
    order = EpochOrder(sizes, shuffle=shuffle)
    for rank in range(0, plan.num_ranks, -(-plan.num_ranks // asked_ranks)):
        started = time.perf_counter()
        order = EpochOrder(sizes, shuffle=shuffle)
        next(_batches(order, plan, rank, start))
        longest = max(longest, time.perf_counter() - started)
        # Orders are cycles; a process has one.
        gc.collect()
    steps = _batches(order, plan, 0, start)
    started = time.perf_counter()
    for _ in range(100):
        next(steps)
    step = (time.perf_counter() - started) / 100
    end = Position(samples=order.usable(0, plan.global_batch) - plan.global_batch)
    shares: list[int] = []
    seen: list[int] = []
    for rank in range(plan.num_ranks):
        # The last step of an epoch; one of the next epoch shows that both orders are held.
        share = next(_batches(order, plan, rank, end)).numbers
        shares.append(len(share))
        seen += share.tolist()
    next(_batches(order, plan, 0, Position(epoch=1)))
    return OrderCost(
        shuffle=shuffle,
        first_batch_seconds=longest,
        step_microseconds=1e6 * step,
        memory_mib=max(0.0, _resident_mib() - before),
        shares=(min(shares), max(shares)),
        repeated=len(seen) - len(set(seen)),
    )


def _batches(order: EpochOrder, plan: BatchPlan, rank: int, position: Position) -> Iterator[Samples]:
    mine = BatchPlan(micro_batch=plan.micro_batch, num_ranks=plan.num_ranks, rank=rank)
    return MicroBatches(order, mine).batches(position)


def measure_store(num_ranks: int, *, seconds: int = 3) -> StoreCost:
    """The watchdog's traffic of ranks that are connections of this process.

    Args:
        num_ranks: how many.
        seconds: for which they send signs of life.
    """
    timeout = timedelta(seconds=60)
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timeout)
    ranks = [
        SignsOfLife(dist.TCPStore("127.0.0.1", server.port, is_master=False, timeout=timeout), rank, num_ranks)
        for rank in range(num_ranks)
    ]
    used = time.process_time()
    for number in range(seconds):
        for each in ranks:
            each.send(Beat(number=number, at='step 1000: last finished "forward", in "backward" for 0.1 s'))
            each.all_end()
    busy = (time.process_time() - used) / seconds
    started = time.perf_counter()
    signs = ranks[-1].read()
    read = time.perf_counter() - started
    assert all(sign is not None for sign in signs)
    started = time.perf_counter()
    ranks[-1].end_all()
    assert all(each.all_end() for each in ranks)
    return StoreCost(
        num_ranks=num_ranks, busy_share=busy, read_seconds=read, told_seconds=time.perf_counter() - started
    )


def _resident_mib() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _show(orders: Sequence[OrderCost], stores: Sequence[StoreCost]) -> None:
    table = Table("shuffle", "first batch", "a later one", "memory", "samples of a rank", "repeated")
    for each in orders:
        table.add_row(
            each.shuffle,
            f"{1000 * each.first_batch_seconds:.1f} ms",
            f"{each.step_microseconds:.0f} us",
            f"{each.memory_mib:.1f} MiB",
            f"{each.shares[0]} to {each.shares[1]}",
            str(each.repeated),
        )
    results().print(table)
    table = Table("ranks", "of a processor", "a late rank reads all", "all are told")
    for each in stores:
        table.add_row(
            str(each.num_ranks),
            f"{each.busy_share:.1%}",
            f"{1000 * each.read_seconds:.1f} ms",
            f"{1000 * each.told_seconds:.1f} ms",
        )
    results().print(table)
