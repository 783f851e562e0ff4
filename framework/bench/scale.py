"""`framework bench scale`: what thousands of ranks cost, by simulation on one machine.

The order of the samples is asked for as ranks ask for it. The watchdog's ranks are connections to one real store, in
this process: what the store's process does for them is what rank 0's would do. The ranks that vote on a stop are here
too: a few as groups of gloo, each connected with every other, and many over a store, which shows what they agree on and
not how long gloo takes.
"""

import gc
import random
import resource
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch.distributed as dist
from rich.table import Table

from framework.bench.record import machine_of, write_record
from framework.core.console import results, tracked
from framework.core.errors import ConfigError
from framework.core.serialization import to_json
from framework.data.sampling.batching import BatchPlan, MicroBatches
from framework.data.sampling.order import EpochOrder, Position, Samples, Shuffle
from framework.training.shapes import Flag
from framework.training.signs_of_life import Beat, SignsOfLife
from framework.training.stop_vote import StopVote, VotingGroup

_SHARD_SAMPLES = 10_000


_BATCHES = 4
"""Of each simulated stop: the signal comes within the second."""


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


@dataclass(frozen=True, kw_only=True)
class VoteCost:
    """The vote on a stop, of so many ranks, with a signal to a random one at a random moment in each trial.

    Attributes:
        num_ranks: that vote.
        over: what carries the vote.
        vote_seconds: of all ranks' votes in a batch, one after the other in this process; the median.
        batches_later: from the batch in which the signal came to the one at whose end all stop, the least and the most.
        divided: trials in which ranks stopped at different batches, or not all.
    """

    num_ranks: int
    over: Literal["gloo", "store"]
    vote_seconds: float
    batches_later: tuple[int, int]
    divided: int


def bench_scale(
    out: Path | None = None,
    *,
    num_samples: int = 10**9,
    num_ranks: int = 4096,
    micro_batch: int = 8,
    asked_ranks: int = 64,
    store_ranks: Sequence[int] = (64, 512),
    gloo_ranks: Sequence[int] = (16, 64),
) -> dict[str, Any]:
    """Simulates the data order and the watchdog of very many ranks.

    Args:
        out: JSON file for the numbers.
        num_samples: of the training set.
        num_ranks: that share the samples.
        micro_batch: samples of each rank.
        asked_ranks: ranks, spread evenly, that are asked for their first micro-batch.
        store_ranks: numbers of ranks whose watchdogs and votes talk to one store.
        gloo_ranks: numbers of ranks that vote by gloo: it opens a connection for every two.

    Returns:
        The numbers, as in the file.

    Raises:
        ConfigError: a number out of range.
    """
    least = min(num_ranks, micro_batch, asked_ranks, *store_ranks, *gloo_ranks)
    if least < 1 or num_samples < 2 * num_ranks * micro_batch:
        problem = f"{num_samples} samples, {num_ranks} ranks, micro-batches of {micro_batch}, {asked_ranks} asked"
        raise ConfigError(problem, hint="use positive numbers, and samples for two steps or more")
    # What is only loaded once does not count as memory of the first order.
    measure_order("full", 10 * num_ranks * micro_batch, BatchPlan(micro_batch=micro_batch, num_ranks=num_ranks), 1)
    orders = [
        measure_order(shuffle, num_samples, BatchPlan(micro_batch=micro_batch, num_ranks=num_ranks), asked_ranks)
        for shuffle in tracked(get_args(Shuffle), "orders", bar=False)
    ]
    stores = [measure_store(ranks) for ranks in tracked(store_ranks, "stores", bar=False)]
    votes = [measure_vote(ranks, "gloo") for ranks in tracked(gloo_ranks, "votes by gloo", bar=False)]
    votes += [measure_vote(ranks, "store") for ranks in tracked(store_ranks, "votes by the store", bar=False)]
    record: dict[str, Any] = {
        "machine": machine_of(),
        "num_samples": num_samples,
        "num_ranks": num_ranks,
        "micro_batch": micro_batch,
        "orders": to_json(orders),
        "stores": to_json(stores),
        "votes": to_json(votes),
    }
    _show(orders, stores, votes)
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


class _StoreGroup:
    """A rank that reduces flags by counters in a store: how many have cast, and how many of them which flag.

    Args:
        store: of all ranks.
        num_ranks: of all.
        name: of the trial.
    """

    def __init__(self, store: dist.Store, num_ranks: int, name: str) -> None:
        self._store, self._num_ranks, self._name = store, num_ranks, name
        self._votes = 0

    def allreduce(self, tensors: list[Flag], opts: dist.AllreduceOptions) -> "_StoredVote":
        """Casts; the flags of this rank's n-th call are reduced with those of the others' n-th.

        Args:
            tensors: one.
            opts: the largest counts, whatever they say.
        """
        self._votes += 1
        (flag,) = tensors
        vote = _StoredVote(self._store, f"{self._name}/{self._votes}", self._num_ranks, flag)
        vote.cast()
        return vote


@dataclass(frozen=True)
class _StoredVote:
    """One rank's part of a reduction."""

    store: dist.Store
    key: str
    num_ranks: int
    flag: Flag

    def cast(self) -> None:
        """Adds this rank."""
        if told := int(self.flag.item()):
            self.store.add(f"{self.key}/told {told}", 1)
        self.store.add(f"{self.key}/cast", 1)

    def wait(self) -> None:
        """Takes the largest flag.

        Raises:
            RuntimeError: not all ranks have cast, and nobody would in this process.
        """
        if self.store.add(f"{self.key}/cast", 0) != self.num_ranks:
            raise RuntimeError(f"not all ranks have cast {self.key}")
        found = [told for told in (1, 2) if self.store.check([f"{self.key}/told {told}"])]
        self.flag.fill_(max(found, default=0))


def measure_vote(num_ranks: int, over: Literal["gloo", "store"], *, trials: int = 5) -> VoteCost:
    """Ranks of this process that end their batches in a random order, until they stop.

    Args:
        num_ranks: how many.
        over: what carries the vote.
        trials: stops, with a signal each.
    """
    rng = random.Random(num_ranks)
    groups = _gloo_groups(num_ranks) if over == "gloo" else None
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) if groups is None else None
    seconds: list[float] = []
    later: list[int] = []
    divided = 0
    for trial in range(trials):
        given = groups or [_StoreGroup(cast(dist.Store, server), num_ranks, str(trial)) for _ in range(num_ranks)]
        votes = [StopVote(cast(VotingGroup, group)) for group in given]
        # The signal reaches a rank after some of the others have cast in the second batch.
        signalled, told, stopped = rng.randrange(num_ranks), 0, Counter[int]()
        for batch in range(_BATCHES):
            order = rng.sample(range(num_ranks), num_ranks)
            signal_at = rng.randrange(num_ranks) if batch == 1 else num_ranks
            started = time.perf_counter()
            for place, rank in enumerate(order):
                told = told or int(place == signal_at)
                stopped[batch] += bool(votes[rank].cast(told if rank == signalled else 0))
            seconds.append(time.perf_counter() - started)
            if stopped[batch]:
                break
        ends = [batch for batch, count in stopped.items() if count]
        divided += len(ends) != 1 or stopped[ends[0]] != num_ranks
        later += [batch - 1 for batch in ends]
    return VoteCost(
        num_ranks=num_ranks,
        over=over,
        vote_seconds=statistics.median(seconds),
        batches_later=(min(later), max(later)),
        divided=divided,
    )


def _gloo_groups(num_ranks: int) -> list[dist.ProcessGroupGloo]:
    """A process group for each rank, all in this process."""
    store = dist.HashStore()

    def join(rank: int) -> dist.ProcessGroupGloo:
        return dist.ProcessGroupGloo(store, rank, num_ranks, timedelta(seconds=60))

    # Each waits for all others.
    with ThreadPoolExecutor(num_ranks) as pool:
        return list(pool.map(join, range(num_ranks)))


def _resident_mib() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _show(orders: Sequence[OrderCost], stores: Sequence[StoreCost], votes: Sequence[VoteCost]) -> None:
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
    table = Table("ranks that vote", "over", "all votes of a batch", "batches until all stop", "divided")
    for each in votes:
        first, last = each.batches_later
        times = f"{1000 * each.vote_seconds:.1f} ms"
        table.add_row(str(each.num_ranks), each.over, times, f"{first} to {last}", str(each.divided))
    results().print(table)
