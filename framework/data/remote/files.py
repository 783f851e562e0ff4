"""Files from anywhere that fsspec reaches: each attempt watched, failures retried, waiting said aloud.

Every filesystem has its own time-outs, errors and retries, or none; so an attempt runs in a thread that is given up
when nothing has arrived for a while, and what it left behind is never looked at.
"""

import logging
import random
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fsspec.callbacks import Callback
from fsspec.core import url_to_fs
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential

from framework.core.errors import ConfigError, DataError

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
_LONGEST_PAUSE_S = 60.0
_TICK_S = 0.2
_MAX_DAMAGED = 3
_MAX_FULL = 6
# What no second attempt would change.
_PERMANENT = (
    FileNotFoundError, PermissionError, ImportError, TypeError, ValueError, NotImplementedError,
)  # fmt: skip
_PERMANENT_NAMES = ("NoCredentialsError", "NoSuchBucket", "ClientConnectorCertificateError")
_TEMPORARY_STATUS = (408, 425, 429)


@dataclass(frozen=True, kw_only=True)
class RemoteConfig:
    """How shards at a URL are fetched and kept.

    Attributes:
        folder: cache of the node, on a local disk; processes, jobs and shard sets may share it.
        max_bytes: size of the cache, at most. It should hold the shards that all ranks of the node read at a time.
        stall_s: an attempt in which nothing arrives for so many seconds is given up.
        time_limit_s: no file may take longer than this, all attempts and waiting together.
        first_pause_s: before the second attempt; doubled before each further one, to a minute at most.
        report_after_s: a process that has waited so many seconds for a file says so, and again each time it doubles.
        storage_options: of fsspec, such as {"anon": True} or {"endpoint_url": "http://minio:9000"} for s3.

    Raises:
        ConfigError: a number out of range.
    """

    folder: str = "~/.cache/framework/shards"
    max_bytes: int = 100 << 30
    stall_s: float = 60.0
    time_limit_s: float = 1800.0
    first_pause_s: float = 1.0
    report_after_s: float = 30.0
    storage_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("max_bytes", "stall_s", "time_limit_s", "first_pause_s", "report_after_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"the cache's {name} is {getattr(self, name)}", hint="give more than 0")


class Damaged(OSError):
    """A file that arrived, but is another than it should be."""


class Incomplete(OSError):
    """A file that arrived in part."""


class DiskFull(OSError):
    """There is no room for a file in the cache."""


class Stalled(OSError):
    """An attempt in which nothing arrived for too long."""


class Patience:
    """The waiting for one file: how long it may take, and when to say that it takes long.

    Args:
        what: the file, for messages.
        config: the times.
        quiet: somebody fetches ahead, nobody waits: say nothing.
    """

    def __init__(self, what: str, config: RemoteConfig, *, quiet: bool = False) -> None:
        self.what = what
        self.config = config
        self._quiet = quiet
        self._start = time.monotonic()
        self._next_report = config.report_after_s
        self.doing = "opening it"

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._start

    def tick(self) -> None:
        """To be called at least every second or so of waiting.

        Raises:
            DataError: the time limit is over.
        """
        if self.elapsed > self.config.time_limit_s:
            problem = f"{self.what} is not here after {self.elapsed:.0f} s ({self.doing})"
            raise DataError(problem, hint="look at the server and the network, or raise the cache's time_limit_s")
        if self.elapsed > self._next_report:
            self._next_report = 2 * self.elapsed
            if not self._quiet:
                logger.warning("waiting for %s since %.0f s: %s", self.what, self.elapsed, self.doing)

    def sleep(self, seconds: float) -> None:
        """Waits, no longer than until the time limit."""
        until = time.monotonic() + seconds
        self.tick()
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _TICK_S))
            self.tick()


def fetch_file(url: str, target: Path, *, num_bytes: int, patience: Patience) -> None:
    """One attempt to copy a file from a URL.

    Args:
        url: of the file.
        target: where it is copied to.
        num_bytes: size that it must have.
        patience: the waiting for it.

    Raises:
        Damaged, Incomplete: it is larger or smaller.
        Stalled: nothing arrived for too long; a thread may go on for a while and write into `target`.
        DataError: the time limit is over.
        Exception: whatever the filesystem raises.
    """
    given_up = threading.Event()
    filesystem, path = _filesystem(url, patience.config)

    def copy() -> None:
        filesystem.get_file(path, str(target), callback=_StopWhen(given_up))

    def arrived() -> int:
        return target.stat().st_size if target.exists() else 0

    try:
        _watched(copy, arrived, patience, most=num_bytes)
    finally:
        given_up.set()
    if arrived() != num_bytes:
        raise Incomplete(f"{arrived():,} bytes arrived, not {num_bytes:,}")


def fetch_bytes(url: str, *, patience: Patience) -> bytes:
    """One attempt to read a small file. Raises as `fetch_file`."""
    filesystem, path = _filesystem(url, patience.config)
    return _watched(lambda: filesystem.cat_file(path), lambda: 0, patience)


def retried(attempt: Callable[[], Result], *, patience: Patience) -> Result:
    """The result of the first attempt that succeeds, with pauses that double between them.

    Raises:
        DataError: one that no other attempt would change, too many damaged files, a full disk, or the time limit is
            over.
    """
    jitter = random.Random()  # not the global one, whose state belongs to the run
    doubling = wait_exponential(multiplier=patience.config.first_pause_s, max=_LONGEST_PAUSE_S)
    # Kinds, not the errors themselves: their frames hold files open, whose room on a full disk is needed.
    failures: list[type[Exception]] = []

    def note(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        assert isinstance(error, Exception), "only failures are retried"
        failures.append(type(error))
        _refuse_hopeless(error, failures, doubling(state), patience)
        reason = _reason(error)
        words = "attempt %d at %s failed (%s); the next in %.1f s"
        logger.warning(words, state.attempt_number, patience.what, reason, state.upcoming_sleep)
        patience.doing = f"attempt {state.attempt_number} failed ({reason})"

    retrying = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, Exception) and not isinstance(error, DataError)),
        wait=lambda state: doubling(state) * jitter.uniform(0.5, 1),
        before_sleep=note,
        sleep=patience.sleep,
        reraise=True,
    )
    return retrying(attempt)


def _refuse_hopeless(error: Exception, failures: Sequence[type[Exception]], pause: float, patience: Patience) -> None:
    """Raises DataError after an error and the kinds of all, where another attempt in `pause` seconds won't help."""
    damaged = sum(issubclass(each, Damaged) for each in failures)
    full = sum(issubclass(each, DiskFull) for each in failures)
    if _is_permanent(error):
        hint = "check the address and the permissions, or whether the set is complete there"
        raise DataError(f"{patience.what} cannot be fetched ({_reason(error)})", hint=hint) from error
    if damaged >= _MAX_DAMAGED:
        problem = f"{patience.what} arrives damaged, {damaged} times of {len(failures)} ({error})"
        raise DataError(problem, hint="put the shard there again, or write the set again") from error
    if full >= _MAX_FULL:
        hint = "make room on that disk, or give another folder or a smaller max_bytes for the cache"
        raise DataError(f"{patience.what} cannot be kept in the cache ({error})", hint=hint) from error
    if patience.elapsed + pause > patience.config.time_limit_s:
        problem = f"{patience.what} was not to be had in {patience.elapsed:.0f} s and {len(failures)} attempts"
        hint = "look at the server and the network, or raise the cache's time_limit_s"
        raise DataError(f"{problem} (last: {_reason(error)})", hint=hint) from error


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _filesystem(url: str, config: RemoteConfig) -> tuple[Any, str]:
    """Made anew in each process and thread that asks: connections don't outlive a fork.

    Raises:
        DataError: a protocol that is unknown, or whose package is missing.
    """
    try:
        return url_to_fs(url, **config.storage_options)
    except (ImportError, ValueError) as error:
        hint = 'install the filesystem, such as: pip install "framework[s3]"'
        raise DataError(f"{url} cannot be opened ({error})", hint=hint) from error


class _StopWhen(Callback):
    """Ends a transfer that nobody waits for any more."""

    def __init__(self, given_up: threading.Event) -> None:
        super().__init__()
        self._given_up = given_up

    def relative_update(self, inc: int = 1) -> None:
        if self._given_up.is_set():
            raise Stalled("given up")


def _watched(
    work: Callable[[], Result], arrived: Callable[[], int], patience: Patience, *, most: int | None = None
) -> Result:
    """Does work in a thread, and leaves it when nothing arrives for too long."""
    results: list[Result] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=run, daemon=True, name=f"fetch {patience.what}").start()
    progress, since = 0, time.monotonic()
    while not done.wait(_TICK_S):
        size = arrived()
        patience.doing = f"{size:,} bytes have arrived"
        if most is not None and size > most:
            raise Damaged(f"more than {most:,} bytes arrive")
        if size != progress:
            progress, since = size, time.monotonic()
        if time.monotonic() - since > patience.config.stall_s:
            raise Stalled(f"nothing arrived for {patience.config.stall_s:g} s")
        patience.tick()
    if errors:
        error = errors.pop()
        # fsspec keeps an error in a frame that the error's own traceback leads to. In such a circle whoever catches it
        # would live on, with the shards that it has open: room on a full disk.
        traceback.clear_frames(error.__traceback__)
        try:
            raise error
        finally:
            del error
    return results[0]


def _is_permanent(error: Exception) -> bool:
    status = getattr(error, "status", None)
    if isinstance(status, int) and 400 <= status < 500:
        return status not in _TEMPORARY_STATUS
    return isinstance(error, _PERMANENT) or type(error).__name__ in _PERMANENT_NAMES
