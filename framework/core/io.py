"""Files that are either whole or not there: temporary name, fsync, rename, fsync of the folder."""

import errno
import fcntl
import hashlib
import os
import socket
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from framework.core.errors import CheckpointError, ConfigError, DataError

PARTIAL = ".partial"
_CHUNK = 1 << 20


@contextmanager
def atomic_write(path: Path) -> Generator[BinaryIO, None, None]:
    """Opens a file that appears as `path` only after the block has ended well and its bytes are on the disk.

    Raises:
        OSError: the disk is full, the folder read-only and so on; `filename` is always set.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        with partial.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        # A failed write does not know its file.
        raise OSError(error.errno, error.strerror or str(error), error.filename or str(path)) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Adds lines to a file; half a line that a killed process has left there is not continued. Raises OSError."""
    with path.open("ab+") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            if stream.read() != b"\n":
                stream.write(b"\n")
        stream.write("".join(f"{line}\n" for line in lines).encode())


_MANIFEST = "manifest.json"
"""A folder with one, such as a shard set, is complete: what is in it is known, and nothing is added."""


def check_outputs(*outputs: str | Path, beside: Sequence[str | Path] = (), inputs: Sequence[str | Path] = ()) -> None:
    """Whether a command can write its files, before it begins with what may take hours; makes their folders.

    Args:
        *outputs: the files that a user has named.
        beside: those that are written beside the first of them. One that is there without it is of something else.
        inputs: what the command reads, files or folders.

    Raises:
        ConfigError: one cannot be written, is a folder, is what is read, lies in a shard set or a checkpoint that is
            read, is the same as another one, or would replace what nobody has named.
    """
    taken = {Path(path).resolve(): "what is read" for path in inputs}
    for path in map(Path, beside):
        if path.exists() and not Path(outputs[0]).exists():
            problem = f"{path} exists, and would be replaced by what is written beside {outputs[0]}"
            raise ConfigError(problem, hint="give another name, or remove it")
    for path in map(Path, (*outputs, *beside)):
        read = [folder for folder in path.resolve().parents if any(folder.is_relative_to(each) for each in taken)]
        if any((folder / _MANIFEST).is_file() for folder in read):
            raise ConfigError(f"{path} lies inside of what is read", hint="give a place outside of it")
        if path.name:
            _probe(path)
        if path.is_dir():
            raise ConfigError(f"{path} is a folder", hint="give the name of a file for what is written")
        if path.resolve() in taken:
            raise ConfigError(f"{path} is {taken[path.resolve()]}", hint="give another name for what is written")
        taken[path.resolve()] = "written twice"


def check_output_folder(folder: str | Path) -> None:
    """The same for a folder that files are written into. Raises ConfigError."""
    _probe(Path(folder) / "output")


def _probe(path: Path) -> None:
    """Makes the file that will become the one at a path, and removes it."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.open("xb").close()
        partial.unlink()
    except FileExistsError as error:
        # Of one that is being written, or was cut off, or of another process that looks here at this moment and may
        # have removed it by now; or a file in the place of a folder.
        if not path.parent.is_dir() or partial.is_dir():
            raise ConfigError(f"{error.filename} is not a folder", hint="give a place that is one") from None
    except OSError as error:
        where = path if error.filename in (None, str(partial)) else error.filename
        raise ConfigError(f"{where} cannot be written ({error.strerror})", hint="give a place that can be") from None


def sync_folder(folder: Path) -> None:
    """Makes renames and removals in `folder` outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(_CHUNK))
    # One buffer for all of it: the kernel clears the pages of a new one.
    with path.open("rb", buffering=0) as stream:
        while size := stream.readinto(buffer):
            digest.update(buffer[:size])
    return digest.hexdigest()


@contextmanager
def locked_folder(folder: Path) -> Generator[None, None, None]:
    """Keeps other writers out of `folder`; the lock ends with the process, however that ends.

    Raises:
        DataError: another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def locked_file(path: Path) -> Generator[None, None, None]:
    """The same by a file, which is made and stays: NFS locks files for all machines, and folders for each alone."""
    with path.open("ab") as stream:
        _lock(stream.fileno(), path)
        yield


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        hint = "wait for it, or choose another folder"
        raise DataError(f"another process is writing {path}", hint=hint) from None


class RunLock:
    """The right to write into a run's folder, until `release` or the end of the process, however that comes.

    A lock of the process, not of the open file: children that outlive the process do not keep it.

    Args:
        folder: of the run; `lock` in it is the file that is locked, and says who holds it.

    Raises:
        CheckpointError: another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._stream = (folder / "lock").open("a+")
        try:
            fcntl.lockf(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._stream.seek(0)
            holder = self._stream.read().strip()
            self._stream.close()
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise OSError(error.errno, error.strerror, str(folder / "lock")) from error
            problem = f"another job is training in {folder} ({holder})"
            raise CheckpointError(problem, hint="wait for its end, stop it, or use another --run.dir") from None
        self._stream.truncate(0)
        self._stream.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._stream.flush()

    def release(self) -> None:
        """Lets others write."""
        self._stream.close()
