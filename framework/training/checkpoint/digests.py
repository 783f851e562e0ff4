"""Sizes and checksums of a checkpoint's files: taken while they are written, and compared by several threads."""

import hashlib
import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

import torch
from torch.distributed.checkpoint import FileSystemWriter
from torch.distributed.checkpoint.filesystem import FileSystem
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future
from typing_extensions import Buffer

from framework.core.io import sha256_of
from framework.training.checkpoint.layout import FileRecord

Item = TypeVar("Item")
Value = TypeVar("Value")
_NOWHERE = Path(os.devnull)
_MOST_THREADS = 8
_BYTES_OF_A_FILE = 1 << 26
"""A rank's tensors are written to one file for so many bytes, up to `_MOST_FILES`: each is a unit of hashing later."""
_MOST_FILES = 4


def record_files(paths: Sequence[Path]) -> dict[Path, FileRecord]:
    """Sizes and checksums of files, by reading them; several at a time."""
    return dict(zip(paths, for_each_file(_record, paths), strict=True))


def _record(path: Path) -> FileRecord:
    return FileRecord(size=path.stat().st_size, sha256=sha256_of(path))


def for_each_file(look: Callable[[Item], Value], files: Sequence[Item]) -> list[Value]:
    """What `look` returns of each file; of as many at a time as this process has threads to compute with.

    Args:
        look: reads a file and hashes it: hashlib lets go of the interpreter meanwhile.
        files: the largest first.
    """
    threads = max(1, min(len(files), torch.get_num_threads(), _MOST_THREADS))
    if threads == 1:
        return [look(file) for file in files]
    with ThreadPoolExecutor(threads, thread_name_prefix="checksums") as pool:
        return list(pool.map(look, files))


class RecordingWriter(FileSystemWriter):
    """Writes a rank's tensors, flushed to the disk, and knows what it has written.

    Large states go to several files at a time. Torch loses what fails in all threads but the first; here it is raised.

    Args:
        folder: for the files.
        num_bytes: of this rank's tensors.
    """

    fs: FileSystem

    def __init__(self, folder: Path, *, num_bytes: int) -> None:
        num_files = max(1, min(_MOST_FILES, num_bytes // _BYTES_OF_A_FILE))
        super().__init__(folder, sync_files=True, thread_count=num_files, overwrite=False)
        self.fs = self._files = _RecordedFiles()

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Writes this rank's part of a plan.

        Args:
            plan: what to write.
            planner: gives the tensors.

        Raises:
            Exception: the first that a thread met.
        """
        self._files.collects = True
        results = super().write_data(plan, planner)
        self._files.collects = False
        if self._files.failures:
            raise self._files.failures[0]
        return results

    def records(self) -> dict[Path, FileRecord]:
        """Every file that was written, by its path."""
        return dict(self._files.records)


class _RecordedFiles(FileSystem):
    """Hashes what is written on its way to the disk.

    Attributes:
        records: of the files that were written.
        collects: failures are kept and not raised: nobody would hear of them.
        failures: those that were kept.
    """

    def __init__(self) -> None:
        self.records: dict[Path, FileRecord] = {}
        self.collects = False
        self.failures: list[Exception] = []

    # Torch's class names the most general of streams.
    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Generator["_HashedFile", None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        hashed: _HashedFile | None = None
        try:
            with ExitStack() as opened:
                hashed = _HashedFile(self._open(Path(path), mode, opened))
                yield hashed
            self.records[Path(path)] = hashed.record()
        except Exception as error:
            self._note((hashed and hashed.failure) or error)

    def _open(self, path: Path, mode: str, opened: ExitStack) -> BinaryIO:
        try:
            stream = opened.enter_context(path.open(mode))
        except OSError as error:
            self._note(error)
            # The thread goes on, to nowhere.
            stream = opened.enter_context(_NOWHERE.open(mode))
        return cast(BinaryIO, stream)

    def _note(self, error: Exception) -> None:
        if not self.collects:
            raise error
        self.failures.append(error)

    def rename(self, path: str | os.PathLike[str], new_path: str | os.PathLike[str]) -> None:
        super().rename(path, new_path)
        self.records[Path(new_path)] = self.records.pop(Path(path))


class _HashedFile:
    """A file that is written from its beginning to its end.

    Attributes:
        failure: the first of the disk; torch goes on after it, and fails of what is missing.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.failure = stream, cast("OSError | None", None)
        self._digest, self._size = hashlib.sha256(), 0

    def write(self, data: Buffer) -> int:
        self._digest.update(data)
        self._size += memoryview(data).nbytes
        with self._noting():
            return self._stream.write(data)

    def tell(self) -> int:
        return self._size

    def fileno(self) -> int:
        return self._stream.fileno()

    def flush(self) -> None:
        # torch's own writer flushes once more when it is collected, which may be after the end of the file.
        if not self._stream.closed:
            with self._noting():
                self._stream.flush()

    def close(self) -> None:
        self._stream.close()

    @contextmanager
    def _noting(self) -> Generator[None, None, None]:
        try:
            yield
        except OSError as error:
            self.failure = self.failure or error
            raise

    def record(self) -> FileRecord:
        return FileRecord(size=self._size, sha256=self._digest.hexdigest())
