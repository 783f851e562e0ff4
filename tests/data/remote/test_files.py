"""Retries, without a network: how often, how long the pauses are, and what ends them."""

import contextlib
import gc
import random
import socket
import time
import weakref

import pytest

from framework.core.errors import ConfigError, DataError
from framework.data.remote.files import Damaged, DiskFull, Patience, RemoteConfig, fetch_bytes, retried


class Recording(Patience):
    """Notes its pauses instead of waiting."""

    def __init__(self, **times: float) -> None:
        super().__init__("the file", RemoteConfig(**times))
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


class Attempts:
    """Fails with each of the errors, then succeeds."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors, self.count = errors, 0

    def __call__(self) -> str:
        self.count += 1
        if self.count <= len(self.errors):
            raise self.errors[self.count - 1]
        return "done"


def test_pauses_double_to_a_minute_with_jitter_of_its_own(caplog, monkeypatch):
    patience = Recording(first_pause_s=1.0)
    # Not from the run's own generator; the checks of types draw from that too, with `getrandbits`.
    for name in ("random", "uniform", "randint", "randrange", "gauss", "expovariate"):
        monkeypatch.delattr(random, name)
    attempt = Attempts(*[OSError("away")] * 9)
    assert retried(attempt, patience=patience) == "done"
    assert attempt.count == 10
    for pause, longest in zip(patience.pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60], strict=True):
        assert longest / 2 <= pause <= longest
    assert "attempt 2 at the file failed (OSError: away); the next in" in caplog.text
    assert patience.doing == "attempt 9 failed (OSError: away)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "count", "problem"),
    [
        (FileNotFoundError("x"), 1, r"the file cannot be fetched \(FileNotFoundError: x\)"),
        (Damaged("other bytes"), 3, r"the file arrives damaged, 3 times of 3 \(other bytes\)"),
        (DiskFull("full"), 6, r"the file cannot be kept in the cache \(full\)"),
        (DataError("known", hint="as it is"), 1, "^known: as it is$"),
    ],
)
def test_what_ends_them(error: Exception, count: int, problem: str):
    attempt = Attempts(*[error] * 20)
    with pytest.raises(DataError, match=problem):
        retried(attempt, patience=Recording())
    assert attempt.count == count


def test_the_time_limit_counts_the_pause_to_come():
    attempt = Attempts(*[OSError("away")] * 20)
    with pytest.raises(DataError, match=r"was not to be had in 0 s and 3 attempts \(last: OSError: away\)"):
        retried(attempt, patience=Recording(first_pause_s=1.0, time_limit_s=3.0))


def test_an_interrupt_is_not_retried():
    attempt = Attempts(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        retried(attempt, patience=Recording())
    assert attempt.count == 1


def test_a_failed_attempt_lets_go_of_what_it_held():
    """Its frames may hold a file open, whose room on a full disk the next attempt needs."""
    held: list[weakref.ref[Patience]] = []

    def attempt() -> list[bool]:
        mine = Recording(first_pause_s=0.001)
        held.append(weakref.ref(mine))
        if len(held) < 4:
            raise OSError("away")
        return [each() is None for each in held[:-1]]

    assert retried(attempt, patience=Recording(first_pause_s=0.001)) == [True, True, True]


def test_an_error_does_not_keep_what_its_callers_have():
    """Fsspec's frames and the error make a circle. Callers in it would have shards open until garbage is collected."""

    def read(url: str) -> weakref.ref[Patience]:
        mine = Recording()
        with contextlib.suppress(OSError):
            fetch_bytes(url, patience=Recording())
        return weakref.ref(mine)

    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        gc.disable()
        try:
            assert read(f"http://127.0.0.1:{nobody.getsockname()[1]}/file")() is None
        finally:
            gc.enable()


def test_patience_ends():
    patience = Patience("the file", RemoteConfig(time_limit_s=0.05))
    start = time.monotonic()
    with pytest.raises(DataError, match=r"the file is not here after 0 s \(opening it\)"):
        patience.sleep(5.0)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("name", ["max_bytes", "stall_s", "time_limit_s", "first_pause_s", "report_after_s"])
def test_numbers_out_of_range(name: str):
    with pytest.raises(ConfigError, match=f"the cache's {name} is 0"):
        RemoteConfig(**{name: 0 if name == "max_bytes" else 0.0})
