"""Samples to batches: map-style datasets over shard sets, and their loader."""

import os
import signal
import threading
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import forkserver, parent_process
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

import torch
from torch.utils.data import DataLoader, Dataset

from framework.core.errors import ConfigError, DataError
from framework.core.process.threads import refuse_too_many
from framework.data.images.options import DAMAGE
from framework.data.loading.batch import EpisodeBatch, PixelBatch, Replaced
from framework.data.loading.shared_buffers import InBuffer, SharedBuffers
from framework.data.loading.worker_limits import limits_told
from framework.data.sampling.mixing import JoinedShards
from framework.data.sampling.order import Samples

Batch = TypeVar("Batch", PixelBatch, EpisodeBatch)
Value = TypeVar("Value")
OnBadSample = Literal["stop", "skip"]
"""What becomes of a sample that cannot be decoded. stop: an error names it. skip: the next good one of its set, in the
order of the shards, stands in for it, whatever the epoch, process or worker."""

_AHEAD = 2
"""Batches that each worker is asked for ahead; torch's default."""
_HELD = 4
_LONGEST_RUN = 1000
"""Bad samples in a row after which there is no use in looking for a good one."""


@dataclass(frozen=True, kw_only=True)
class LoadingConfig:
    """How samples are read and decoded.

    Attributes:
        num_workers: processes that decode samples; 0 decodes in the training process.
        on_bad_sample: what becomes of a sample that cannot be decoded.
        max_bad_samples: different bad samples of one process beyond which training stops all the same.

    Raises:
        ConfigError: a number out of range.
    """

    num_workers: int = 0
    on_bad_sample: OnBadSample = "stop"
    max_bad_samples: int = 100

    def __post_init__(self) -> None:
        for name in ("num_workers", "max_bad_samples"):
            if getattr(self, name) < 0:
                raise ConfigError(f"loading.{name} is {getattr(self, name)}", hint="give at least 0")


class BadSample(Exception):
    """A sample whose bytes were read but mean nothing; the message is the reason."""


Decode = Callable[[int, bytes, int, int], None]


class ShardDataset(Dataset[Batch], Generic[Batch]):
    """Batches of the samples of shard sets.

    Args:
        shards: where they are.
        seed: of the augmentation, which depends on it, the pass and the sample's number alone.
        on_bad_sample: what becomes of a sample that cannot be decoded.
    """

    def __init__(self, shards: JoinedShards, *, seed: int = 0, on_bad_sample: OnBadSample = "stop") -> None:
        self.shards = shards
        self.seed = seed
        self.on_bad_sample = on_bad_sample

    def __len__(self) -> int:
        return len(self.shards)

    buffers: SharedBuffers | None = None
    """Memory for the workers' batches, set by the loader."""

    @abstractmethod
    def batch(self, samples: Samples, buffer: int | None = None) -> "Batch | InBuffer":
        """The samples as one batch.

        Args:
            samples: which.
            buffer: a place in `buffers` to use, where there are buffers.

        Raises:
            DataError: a sample that cannot be read, or decoded.
        """

    def num_bytes(self, num_samples: int) -> int:
        """Size of the place that a batch needs in `buffers`; 0 for batches that use none."""
        return 0

    def load(self, samples: Samples, decode: "Decode") -> "Loaded":
        """Reads and decodes samples, and finds others for the bad ones.

        Args:
            samples: which.
            decode: is given a place in the batch, the bytes, the pass over the set and the sample's number; raises
                BadSample where the bytes mean nothing.
        """
        loaded = Loaded(labels=[], numbers=[], replaced=[])
        for place, (number, passed) in enumerate(zip(samples.numbers.tolist(), passes_of(samples), strict=True)):
            taken, label, bad = self.load_one(place, number, passed, decode)
            loaded.labels.append(label)
            loaded.numbers.append(taken)
            loaded.replaced.extend(bad)
        return loaded

    def load_one(self, place: int, number: int, passed: int, decode: Decode) -> tuple[int, int, list[Replaced]]:
        """Reads and decodes a sample, or the next good one of its set.

        Args:
            place: in the batch.
            number: of the sample.
            passed: the pass over the set.
            decode: as in `load`.

        Returns:
            The number of the sample that was taken, its label, and the bad ones before it.

        Raises:
            DataError: it cannot be read, or decoded and not be replaced.
        """
        bad: list[Replaced] = []
        while True:
            data, label = self.shards.read(number)
            try:
                decode(place, data, passed, number)
            except BadSample as error:
                bad.append(self._replaced(number, str(error), run=len(bad) + 1))
                number = self.shards.following(number)
            else:
                return number, label, bad

    def _replaced(self, number: int, reason: str, *, run: int) -> Replaced:
        """What is known of a bad sample, `run` of them in a row with it.

        Raises:
            DataError: bad samples are not to be replaced, or it is of no use to go on.
        """
        problem = f"{self.shards.describe(number)} cannot be decoded ({reason})"
        if self.on_bad_sample == "stop":
            hint = "see framework shards check, or go on with other samples by data.loading.on_bad_sample skip"
            if reason.startswith(DAMAGE):
                hint += ", or with what could be decoded by data.images.read.damaged keep"
            raise DataError(problem, hint=hint)
        if run >= _LONGEST_RUN:
            raise DataError(f"{run} bad samples in a row, the last: {problem}", hint="write the shard set again")
        return Replaced(number=number, problem=problem)

    def __getitems__(self, wanted: "Samples | _Wanted") -> "Batch | InBuffer | DataError":
        """A whole batch; torch's loader asks for this with what its batch sampler gives."""
        try:
            return self.batch(wanted) if isinstance(wanted, Samples) else self.batch(wanted.samples, wanted.buffer)
        except DataError as error:
            # Raised in a worker process it would arrive as a RuntimeError around a printed traceback.
            return error


def passes_of(samples: Samples) -> list[int]:
    """Each sample's pass over its own set."""
    return [samples.epoch] * len(samples) if samples.passes is None else samples.passes.tolist()


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The labels and numbers of the samples of a batch, and the bad ones that some stand in for."""

    labels: list[int]
    numbers: list[int]
    replaced: list[Replaced]


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """A batch that a worker is asked for, and the place for it."""

    samples: Samples
    buffer: int | None


@runtime_checkable
class SizedIterable(Protocol):
    """The samples of each batch in turn, and how many batches there are."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Samples]: ...


class _WithBuffers:
    """Gives each batch a place."""

    def __init__(self, batches: SizedIterable, buffers: SharedBuffers) -> None:
        self.batches, self.buffers = batches, buffers

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[_Wanted]:
        # Torch asks for the first batch only when the workers have ended what they were asked for before.
        self.buffers.forget()
        for samples in self.batches:
            yield _Wanted(samples=samples, buffer=self.buffers.ask())


class ShardLoader(DataLoader[Batch]):
    """The loader of a ShardDataset: yields its batches, and raises a worker's DataError as it was.

    Args:
        dataset: the samples.
        batches: the samples of each batch, with a length.
        num_workers: processes that decode; 0 decodes in this one.
        max_bad_samples: more different bad samples than this, in this process since its start, are an error.
        most_samples: of a batch; the workers' batches then share memory that is used again; 0 makes new for each.
        pinned: whether batches are copied into page-locked memory: for a GPU alone.

    Attributes:
        replaced: the bad samples that were met, by number.
    """

    def __init__(
        self,
        dataset: ShardDataset[Batch],
        batches: SizedIterable,
        *,
        num_workers: int = 0,
        max_bad_samples: int = 100,
        most_samples: int = 0,
        pinned: bool = False,
    ) -> None:
        refuse_too_many(num_workers, "data.loading.num_workers")
        asked_for: SizedIterable | _WithBuffers = batches
        num_bytes = dataset.num_bytes(most_samples) if num_workers else 0
        if num_bytes:
            # What the workers are asked for ahead, and what training may hold of it.
            with limits_told(num_workers):
                dataset.buffers = SharedBuffers(_AHEAD * num_workers + _HELD, num_bytes)
            asked_for = _WithBuffers(batches, dataset.buffers)
        super().__init__(
            dataset,
            # Torch takes whatever yields what the data set is asked for.
            batch_sampler=asked_for,  # pyright: ignore[reportArgumentType]
            num_workers=num_workers,
            prefetch_factor=_AHEAD if num_workers > 0 else None,
            persistent_workers=num_workers > 0,
            multiprocessing_context=worker_context() if num_workers > 0 else None,
            worker_init_fn=_end_with_training,
            pin_memory=pinned,
            collate_fn=_as_it_is,
            # A loader draws a number whenever it is iterated; from the global generator, a resumed run would draw more.
            generator=torch.Generator(),
        )
        self.max_bad_samples = max_bad_samples
        self.replaced: dict[int, Replaced] = {}

    def __iter__(self) -> Iterator[Batch]:  # pyright: ignore[reportIncompatibleMethodOverride]
        with limits_told(self.num_workers):
            batches = super().__iter__()
        while True:
            with limits_told(self.num_workers):
                batch = next(batches, None)
            if batch is None:
                return
            if isinstance(batch, DataError):
                try:
                    raise batch
                finally:
                    # This frame is in its traceback: with each other's names both would wait for a garbage collection.
                    del batch
            arrived: Any = batch.batch() if isinstance(batch, InBuffer) else batch
            # The loop's name would hold the memory of a batch until the next one is there.
            del batch
            for replaced in arrived.replaced:
                self._count(replaced)
            yield arrived
            del arrived

    def _count(self, replaced: Replaced) -> None:
        """Warns once of each bad sample.

        Raises:
            DataError: there are too many.
        """
        if replaced.number in self.replaced:
            return
        self.replaced[replaced.number] = replaced
        if len(self.replaced) > self.max_bad_samples:
            problem = f"more than {self.max_bad_samples} bad samples, the last: {replaced.problem}"
            raise DataError(problem, hint="write the shards again, or raise data.loading.max_bad_samples")
        warnings.warn(f"{replaced.problem}; the next good sample stands in for it", stacklevel=2)

    # Lightning takes a loader with these two for one that can resume, and warns about any other. Their content stays
    # empty: the position belongs to the data module, which has it at the end of an epoch too.
    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        pass


def worker_context() -> ForkServerContext:
    """How workers start: forked from a small server process that has done the imports.

    A fork of the training process itself may hang for ever: threads of its process group (seen with gloo's) hold locks
    of the interpreter, which no one releases in the child.
    """
    context = ForkServerContext()
    # What a worker decodes with, and nothing of what trains: torch alone takes a second, all else several more.
    context.set_forkserver_preload(["framework.data.loading.datasets"])
    return context


def start_workers_server() -> None:
    """Starts the server of `worker_context` without waiting for its imports, if it does not run yet."""
    worker_context()
    forkserver.ensure_running()


def _end_with_training(worker: int) -> None:
    """Ends this worker when the training process has died, by whatever signal.

    Torch's own watch looks at the parent, which is the server; and that waits for its children. Ctrl-C reaches all
    processes of a terminal: training finishes its step, and needs its workers for that.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    training = parent_process()
    assert training is not None, "a worker is a child"

    def watch() -> None:
        wait([training.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _as_it_is(batch: Value) -> Value:
    return batch
