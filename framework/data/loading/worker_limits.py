"""Limits of the machine that a loader's worker processes run into, which torch tells in a traceback: said in a line."""

import errno
import re
import resource
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from framework.core.errors import DataError

SHARED_MEMORY = Path("/dev/shm")
_DIED = re.compile(r"DataLoader worker \(pid(?:\(s\))?[^)]*\) (?:is killed by signal: ([^.]*)|exited unexpectedly)")
_FEWER = "use fewer data.loading.num_workers"


@contextmanager
def limits_told(num_workers: int) -> Generator[None, None, None]:
    """Raises DataError, with the limit and the way out, in place of what torch and the system raise at a limit.

    Args:
        num_workers: of the loader that starts its workers, or asks them for a batch, in the block.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        found = _limit(error) if num_workers else None
        if found is None:
            raise
        raise DataError(f"{num_workers} loader workers: {found[0]}", hint=found[1]) from error


def _limit(error: OSError | RuntimeError) -> tuple[str, str] | None:
    """What an error says of the machine, and what to do about it; None if nothing."""
    text, number = str(error), error.errno if isinstance(error, OSError) else None
    if number in (errno.EMFILE, errno.ENFILE):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"too many open files, of at most {most} (ulimit -n)", f"raise the limit, or {_FEWER}"
    if number in (errno.EAGAIN, errno.ENOMEM) or "start new thread" in text:
        return "no more processes, threads or memory (ulimit -u, a container's limits)", f"raise the limit, or {_FEWER}"
    if number == errno.ENOSPC or any(word in text for word in ("shared memory", "Bus error", "torch_shm")):
        return _space(), "give more (docker run --shm-size 8g), or use data.loading.num_workers 0"
    if died := _DIED.search(text):
        how = f"killed by a signal ({died[1].strip()})" if died[1] else "ended"
        return f"one was {how}, perhaps for want of memory", f"see the kernel's log (dmesg), or {_FEWER}"
    return None


def _space() -> str:
    try:
        usage = shutil.disk_usage(SHARED_MEMORY)
    except OSError:
        return f"{SHARED_MEMORY} is not there, by which they hand batches over"
    return f"{SHARED_MEMORY}, by which they hand batches over, has {usage.free >> 20} of {usage.total >> 20} MiB left"
