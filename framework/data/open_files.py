"""The open shards of a process: all its sets share what the kernel lets it have open."""

import errno
import os
import resource
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress

_SHARE = 4
"""A fourth of the limit is for shards: workers, sockets, logs and the libraries need files too."""
_FEWEST, _MOST = 16, 1024
_TOO_MANY = (errno.EMFILE, errno.ENFILE)


class OpenFile:
    """A descriptor that is closed when nobody uses it any more."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def is_removed(self) -> bool:
        """Whether the file has no name any more: its room on the disk is free once it is closed."""
        return os.fstat(self.descriptor).st_nlink == 0

    def __del__(self) -> None:
        with suppress(OSError):
            os.close(self.descriptor)


class OpenFiles:
    """Open files by their owner and number; those that were used longest ago are closed where there are too many."""

    def __init__(self) -> None:
        self._files: OrderedDict[tuple[int, int], OpenFile] = OrderedDict()
        self._lock = threading.Lock()
        self._gone: deque[int] = deque()

    def __contains__(self, key: tuple[int, int]) -> bool:
        return key in self._files

    def __len__(self) -> int:
        return len(self._files)

    def get(self, key: tuple[int, int], open_file: Callable[[], int]) -> OpenFile:
        """A file, opened if need be; it stays open as long as the caller has it.

        Args:
            key: owner and number.
            open_file: gives a descriptor.

        Raises:
            OSError: it cannot be opened, or whatever else `open_file` raises.
        """
        with self._lock:
            self._close_gone()
            if (file := self._files.get(key)) is not None:
                self._files.move_to_end(key)
                return file
        file = OpenFile(self.opened(open_file))
        with self._lock:
            self._files[key] = file
            while len(self._files) > max_open():
                self._files.popitem(last=False)
        return file

    def opened(self, open_file: Callable[[], int]) -> int:
        """What `open_file` gives; where the process has too many files open, half of these are closed for it."""
        while True:
            try:
                return open_file()
            except OSError as error:
                if error.errno not in _TOO_MANY or not self._files:
                    raise
            with self._lock:
                for _ in range(-(-len(self._files) // 2)):
                    self._files.popitem(last=False)

    def close_removed(self, owner: int | None = None) -> None:
        """Closes files that have no name any more, of one owner or of all."""
        with self._lock:
            for key in [key for key, file in self._files.items() if owner in (None, key[0]) and file.is_removed()]:
                del self._files[key]

    def close_all_of(self, owner: int) -> None:
        """Closes the files of an owner that is no more, or has the next call of `get` close them.

        A garbage collection calls it, which comes at any allocation, also at one of a thread that has the lock: it
        must not wait for that.
        """
        self._gone.append(owner)
        if self._lock.acquire(blocking=False):
            try:
                self._close_gone()
            finally:
                self._lock.release()

    def _close_gone(self) -> None:
        """Closes the files of all owners that are no more; for whoever has the lock."""
        while self._gone:
            owner = self._gone.popleft()
            for key in [key for key in self._files if key[0] == owner]:
                del self._files[key]

    def renew_lock(self) -> None:
        """For a process that was forked while another thread held the lock."""
        self._lock = threading.Lock()


def max_open() -> int:
    """Shards that this process keeps open."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST if limit == resource.RLIM_INFINITY else max(_FEWEST, min(_MOST, limit // _SHARE))


def way_out(error: OSError, otherwise: str) -> str:
    """The hint for a file that could not be opened or read: where the process has too many open, it is to blame.

    Args:
        error: what was met.
        otherwise: the hint where the file is to blame.
    """
    if error.errno not in _TOO_MANY:
        return otherwise
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return f"this process may have {limit} files open: raise that with ulimit -n, or use fewer shard sets or workers"


OPEN_FILES = OpenFiles()
"""Of this process."""
os.register_at_fork(after_in_child=OPEN_FILES.renew_lock)
