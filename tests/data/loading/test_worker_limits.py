"""What workers run into is told with the limit and the way out; anything else stays what it is."""

import errno
import os
from pathlib import Path

import pytest

from framework.core.errors import DataError
from framework.data.loading import worker_limits
from framework.data.loading.worker_limits import limits_told


def system_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


TOLD = [
    (
        system_error(errno.EMFILE),
        r"2 loader workers: too many open files, of at most \d+ \(ulimit -n\): raise the limit",
    ),
    (system_error(errno.EAGAIN), "no more processes, threads or memory .*use fewer data.loading.num_workers"),
    (RuntimeError("can't start new thread"), "no more processes, threads or memory"),
    (system_error(errno.ENOSPC), r"/dev/shm, .* has \d+ of \d+ MiB left: give more \(docker run --shm-size 8g\)"),
    (
        RuntimeError("unable to open shared memory object </torch_1_2_0> in read-write mode: Read-only file system"),
        "num_workers 0",
    ),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that"), "/dev/shm"),
    (
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
        r"one was killed by a signal \(Killed\), perhaps for want of memory: see the kernel's log",
    ),
    (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "one was ended, perhaps"),
]


@pytest.mark.parametrize(("error", "told"), TOLD)
def test_a_limit_of_the_machine(error: Exception, told: str):
    with pytest.raises(DataError, match=told), limits_told(2):
        raise error


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), system_error(errno.EIO)])
def test_anything_else_stays(error: Exception):
    with pytest.raises(type(error)) as raised, limits_told(2):
        raise error
    assert raised.value is error


def test_without_workers_it_is_not_theirs():
    with pytest.raises(OSError, match="No space left"), limits_told(0):
        raise system_error(errno.ENOSPC)


def test_no_shared_memory_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker_limits, "SHARED_MEMORY", tmp_path / "shm")
    with pytest.raises(DataError, match="shm is not there, by which they hand batches over"), limits_told(1):
        raise system_error(errno.ENOSPC)
