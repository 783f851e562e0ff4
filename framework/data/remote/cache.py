"""A cache of remote shards on a local disk, shared by all processes of a node.

Files are named after the SHA-256 of their contents, so that no two sets can be mistaken for each other, and are only
ever there whole: fetched under another name, verified, renamed. A lock for each file makes one process fetch while the
others wait; the kernel drops it with the process. When the bound is reached, the files that were opened longest ago
are removed; a process that has one open goes on reading it.

    FOLDER/files/SHA256                   whole files; their time of change is that of their last use
    FOLDER/partial/SHA256.BYTES.PID.N     files on their way; BYTES, the size to come, counts against the bound
    FOLDER/locks/SHA256, FOLDER/locks/room
"""

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from framework.core.errors import ConfigError, DataError
from framework.data.remote.files import Damaged, DiskFull, Patience, RemoteConfig, fetch_file, retried

_POLL_S = 0.05
_CHUNK = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_UNUSABLE = (errno.EFBIG, errno.EROFS, errno.EIO)
_TOO_MANY_OPEN = (errno.EMFILE, errno.ENFILE)
_attempts = count()


@dataclass(frozen=True, kw_only=True)
class Blob:
    """A file to have: where it is, and what it must be.

    Attributes:
        url: where it is fetched from.
        sha256: of its bytes, in hexadecimal.
        num_bytes: its size.
    """

    url: str
    sha256: str
    num_bytes: int


class ShardCache:
    """Opens remote files, from the disk where they are there. It has no state of its own but its folder.

    Args:
        config: where, how much, how long.
        release: called when the disk is full: closes files that were removed, whose room is free only then.

    Raises:
        DataError: the folder cannot be made.
    """

    def __init__(self, config: RemoteConfig, *, release: Callable[[], None] = lambda: None) -> None:
        self.config = config
        self._release = release
        self.folder = Path(config.folder).expanduser()
        try:
            for name in ("files", "partial", "locks"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = f"the cache folder {self.folder} cannot be made ({error.strerror})"
            raise DataError(problem, hint="give another folder for the cache") from None

    def open(self, blob: Blob, *, quiet: bool = False) -> int:
        """A descriptor of the file, open for reading; fetches it if it is not there.

        Args:
            blob: the file.
            quiet: don't say that it takes long: nobody waits.

        Raises:
            DataError: it cannot be fetched, arrives damaged, takes too long, or the disk is full.
            ConfigError: it is larger than the cache.
            OSError: this process has too many files open.
        """
        if blob.num_bytes > self.config.max_bytes:
            problem = f"{blob.url} has {blob.num_bytes:,} bytes, the cache takes {self.config.max_bytes:,}"
            raise ConfigError(problem, hint="raise the cache's max_bytes")
        patience = Patience(blob.url, self.config, quiet=quiet)
        try:
            descriptor = self._open_file(blob)
            if descriptor is None:
                with self._locked(blob, patience):
                    # Another process may have fetched it meanwhile.
                    descriptor = self._open_file(blob)
                    if descriptor is None:
                        descriptor = retried(lambda: self._fetch(blob, patience), patience=patience)
        except OSError as error:
            if error.errno in _TOO_MANY_OPEN:
                raise
            problem = f"the cache at {self.folder} cannot be used ({error.strerror or error})"
            raise DataError(problem, hint="give another folder for the cache") from error
        return descriptor

    def _path(self, blob: Blob) -> Path:
        return self.folder / "files" / blob.sha256

    def _open_file(self, blob: Blob) -> int | None:
        try:
            descriptor = os.open(self._path(blob), os.O_RDONLY)
        except FileNotFoundError:
            return None
        if os.fstat(descriptor).st_size != blob.num_bytes:
            os.close(descriptor)
            self._path(blob).unlink(missing_ok=True)
            return None
        with suppress(OSError):  # another user's cache
            os.utime(descriptor)
        return descriptor

    @contextmanager
    def _locked(self, blob: Blob, patience: Patience) -> Iterator[None]:
        """Keeps other processes and threads from fetching the same file."""
        descriptor = os.open(self.folder / "locks" / blob.sha256, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            while not _try_lock(descriptor):
                patience.doing = "another process or thread is fetching it"
                patience.sleep(_POLL_S)
            yield
        finally:
            _unlock(descriptor)

    def _fetch(self, blob: Blob, patience: Patience) -> int:
        """One attempt. Raises as `fetch_file`, DiskFull, and DataError for a disk that is unusable."""
        partial = self._reserve(blob, patience)
        try:
            while True:
                try:
                    fetch_file(blob.url, partial, num_bytes=blob.num_bytes, patience=patience)
                    return self._keep(blob, partial)
                except OSError as error:
                    if error.errno in _UNUSABLE:
                        problem = f"{blob.url} cannot be kept in the cache at {self.folder} ({error.strerror})"
                        raise DataError(problem, hint="give another folder for the cache") from error
                    if error.errno not in _FULL:
                        raise
                    if not self._evict_oldest():
                        # What other processes have open takes room until they go on to their next shards.
                        raise DiskFull(f"{error.strerror} at {self.folder}") from error
        finally:
            partial.unlink(missing_ok=True)

    def _keep(self, blob: Blob, partial: Path) -> int:
        """Verifies a file, gives it its name, and opens it before anyone can remove it.

        Raises:
            Damaged: its SHA-256 is another.
        """
        descriptor = os.open(partial, os.O_RDONLY)
        try:
            digest = hashlib.sha256()
            for offset in range(0, blob.num_bytes, _CHUNK):
                digest.update(os.pread(descriptor, _CHUNK, offset))
            if digest.hexdigest() != blob.sha256:
                raise Damaged("its sha256 is not the manifest's")
            # A file that is there after a power cut must be whole then, too.
            os.fsync(descriptor)
            partial.replace(self._path(blob))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _reserve(self, blob: Blob, patience: Patience) -> Path:
        """Makes room for a file and takes it; waits for the files that others are fetching where they take it all."""
        name = f"{blob.sha256}.{blob.num_bytes}.{os.getpid()}.{next(_attempts)}"
        while True:
            with self._room():
                if self._make_room(blob):
                    (self.folder / "partial" / name).touch()
                    return self.folder / "partial" / name
            patience.doing = f"the cache of {self.config.max_bytes:,} bytes is full of files that are being fetched"
            patience.sleep(_POLL_S)

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Held for moments only, to count and remove files."""
        descriptor = os.open(self.folder / "locks" / "room", os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            _unlock(descriptor)

    def _make_room(self, blob: Blob) -> bool:
        """Removes files until another one fits within the bound; False when that takes those being fetched."""
        coming = 0
        for partial in list((self.folder / "partial").iterdir()):
            sha256, num_bytes, *_ = partial.name.split(".")
            if sha256 != blob.sha256 and self._is_fetched(sha256):
                coming += int(num_bytes)
            else:
                # Ours is the lock, or nobody's: left by a process that was killed, or an attempt given up.
                partial.unlink(missing_ok=True)
        files = self._files()
        used = coming + blob.num_bytes + sum(size for _, size, _ in files)
        if coming + blob.num_bytes > self.config.max_bytes:
            return False
        for _, size, path in files:
            if used <= self.config.max_bytes:
                break
            path.unlink(missing_ok=True)
            used -= size
        return True

    def _files(self) -> list[tuple[int, int, Path]]:
        """(time of the last use, size, path) of the whole files, the oldest first."""
        found = []
        for path in (self.folder / "files").iterdir():
            with suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        return sorted(found)

    def _evict_oldest(self) -> bool:
        with self._room():
            files = self._files()
            if files:
                files[0][2].unlink(missing_ok=True)
        self._release()
        return bool(files)

    def _is_fetched(self, sha256: str) -> bool:
        """Whether a living process holds the lock of a file."""
        try:
            descriptor = os.open(self.folder / "locks" / sha256, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            return not _try_lock(descriptor)
        finally:
            _unlock(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlock(descriptor: int) -> None:
    # Closing is not enough: a process that was forked meanwhile has the file open, too.
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
