"""Random access to the samples of a shard set."""

import hashlib
import os
import tarfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Int, Int64

from framework.core.errors import DataError
from framework.data.archives.tar import member_name
from framework.data.open_files import OPEN_FILES, OpenFile, way_out
from framework.data.remote.files import RemoteConfig
from framework.data.shards.backends import CHECK, Backend, LocalBackend, RemoteBackend
from framework.data.shards.manifest import INDEX, Manifest

_numbers = count()
_HEADER_BYTES = 512
_CHUNK = 1 << 20
_GAP = 4096
"""Bytes between two samples that are rather read than passed over: a page; in a tar, labels and headers lie there."""


class ShardSet:
    """The samples of a shard set, by number.

    Shards that were read last stay open, as many as `open_files` lets all sets have. Reads name their own position, so
    processes may share the files after a fork, and threads a set; after a spawn the set is opened anew. Files are read,
    not mapped: a mapped file that shrinks or whose disk fails kills the process without a message (decision 005).

    Args:
        path: the set's folder, or a URL that fsspec knows, such as `s3://bucket/set`; its shards go through a cache.
        remote: the cache, and how patient to be with a URL.
        manifest_sha256: of the manifest of the set at the URL, for opening the very same set again.

    Attributes:
        path: the set's folder (a Path) or URL (a str).
        manifest: what the set holds.
        index: int64 rows (shard number, offset, size in bytes, label) of the samples, mapped from the file; the
            samples of a shard are consecutive. The label of an episode is -1.

    Raises:
        DataError: no shard set, a shard that is missing or of another size than recorded, an index that does not
            belong to it, or a URL whose manifest or index cannot be fetched.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        remote: RemoteConfig = RemoteConfig(),
        manifest_sha256: str | None = None,
    ) -> None:
        self._number = next(_numbers)
        weakref.finalize(self, OPEN_FILES.close_all_of, self._number).atexit = False
        self._remote = remote
        self._backend: Backend = (
            RemoteBackend(str(path), remote, release=OPEN_FILES.close_removed, manifest_sha256=manifest_sha256)
            if "://" in str(path)
            else LocalBackend(Path(path))
        )
        self.path = self._backend.path
        self.manifest: Manifest = self._backend.manifest
        self.index = _open_index(self._backend)
        self._rows = np.asarray(self.index)  # the same memory; rows of a memmap are slow to take

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is a position in it. None for episodes."""
        return self.manifest.classes

    def __len__(self) -> int:
        return len(self.index)

    def read(self, number: int) -> tuple[bytes, int]:
        """The bytes of a sample, an image file or JSON, and its label.

        Args:
            number: in [0, len).

        Raises:
            DataError: the shard cannot be fetched, or be read there.
        """
        shard, offset, size, label = self._rows[number].tolist()
        try:
            data = os.pread(self._file(shard).descriptor, size, offset)
        except OSError as error:
            problem = f"{self.describe(number)} cannot be read ({error.strerror})"
            raise DataError(problem, hint=way_out(error, f"{CHECK} {self.path}")) from None
        if len(data) != size:
            problem = f"{self.describe(number)} ends after {len(data)} of {size} bytes"
            raise DataError(problem, hint=f"{CHECK} {self.path}")
        return data, label

    def read_many(self, numbers: Int[np.ndarray, "samples"]) -> Iterator[tuple[int, bytes | None]]:
        """The bytes of samples in the order in which they lie, those that lie close together by one read.

        Args:
            numbers: in [0, len), in any order; one may be there twice.

        Yields:
            A place in `numbers` and the bytes of the sample there; None for what cannot be read, of which `read` says
            why.

        Raises:
            DataError: a shard cannot be fetched.
        """
        if not len(numbers):
            return
        runs = _Runs.of(self._rows[numbers])
        held, file = -1, None
        for shard, start, length, first, after in runs.reads:
            try:
                if shard != held or file is None:
                    held, file = shard, self._file(shard)
                data = os.pread(file.descriptor, length, start)
            except OSError:
                file = None
                yield from ((place, None) for place in runs.places[first:after])
                continue
            if after - first == 1:
                yield runs.places[first], data if len(data) == length else None
                continue
            for place, offset, size in zip(
                runs.places[first:after], runs.offsets[first:after], runs.sizes[first:after], strict=True
            ):
                sample = data[offset - start : offset - start + size]
                yield place, sample if len(sample) == size else None

    def labels(self, numbers: Int[np.ndarray, "samples"]) -> Int64[np.ndarray, "samples"]:
        """The labels of samples."""
        return self._rows[numbers, 3]

    def prefetch(self, shards: Sequence[int]) -> None:
        """Fetches shards of a remote set into the cache, in the background; nothing for a folder.

        Args:
            shards: numbers of those that will be read next, the first one first. They replace those of the last call
                that have not been begun. Errors show when the shard is read.
        """
        closed = [shard for shard in shards if (self._number, shard) not in OPEN_FILES]
        self._backend.prefetch([self.manifest.shards[shard] for shard in closed])

    def describe(self, number: int) -> str:
        """A sample's number, shard and place in it, for messages."""
        shard, offset = (int(value) for value in self.index[number, :2])
        return f"sample {number} (byte {offset} of {self._backend.name(self.manifest.shards[shard].name)})"

    def member(self, number: int) -> str:
        """The name of a sample's member in its shard, for messages; reads the shard.

        Raises:
            DataError: the shard cannot be fetched or read, or the index does not belong to it.
        """
        shard, offset = (int(value) for value in self.index[number, :2])
        try:
            header = os.pread(self._file(shard).descriptor, _HEADER_BYTES, offset - _HEADER_BYTES)
            return member_name(header)
        except OSError as error:
            problem = f"{self.describe(number)} cannot be read ({error.strerror})"
            raise DataError(problem, hint=way_out(error, f"{CHECK} {self.path}")) from None
        except tarfile.TarError as error:
            problem = f"{self.describe(number)} follows no tar header ({error})"
            raise DataError(problem, hint=f"{CHECK} {self.path}") from None

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return _reopened, (self.path, self._remote, self._backend.manifest_sha256)

    def _file(self, shard: int) -> OpenFile:
        """The open file of a shard, kept open by whoever holds it."""
        key = self._number, shard
        if key not in OPEN_FILES:
            OPEN_FILES.close_removed(self._number)
        return OPEN_FILES.get(key, lambda: self._backend.open_shard(self.manifest.shards[shard]))


class _Runs(NamedTuple):
    """Samples in the order in which they lie.

    Attributes:
        places: of the samples in what was asked for.
        offsets: in their shards, in bytes.
        sizes: in bytes.
        reads: of samples that lie close together: shard, offset and length in bytes, the first sample and the one
            after the last.
    """

    places: list[int]
    offsets: list[int]
    sizes: list[int]
    reads: Iterable[tuple[int, int, int, int, int]]

    @classmethod
    def of(cls, rows: Int64[np.ndarray, "sample column"]) -> "_Runs":
        """Those of some rows of an index."""
        shards, offsets, sizes, _ = rows.T
        order = np.lexsort((offsets, shards))
        shards, offsets, sizes = shards[order], offsets[order], sizes[order]
        ends = offsets + sizes
        begins = np.ones(len(order), dtype=bool)
        begins[1:] = (
            (shards[1:] != shards[:-1])
            | (offsets[1:] - ends[:-1] > _GAP)
            # So that a read is of about so many bytes at most.
            | (offsets[1:] // _CHUNK != offsets[:-1] // _CHUNK)
        )
        firsts = np.flatnonzero(begins)
        starts = offsets[firsts]
        lengths = np.maximum.reduceat(ends, firsts) - starts
        afters = [*firsts[1:].tolist(), len(order)]
        reads = zip(shards[firsts].tolist(), starts.tolist(), lengths.tolist(), firsts.tolist(), afters, strict=True)
        return cls(order.tolist(), offsets.tolist(), sizes.tolist(), reads)


def _reopened(path: Path | str, remote: RemoteConfig, manifest_sha256: str | None) -> ShardSet:
    return ShardSet(path, remote=remote, manifest_sha256=manifest_sha256)


def read_index(path: Path, manifest: Manifest) -> Int64[np.ndarray, "sample column"]:
    """Maps the index of the shard set in a folder: int64 rows (shard number, offset, size in bytes, label).

    Raises:
        DataError: it is missing, damaged, or does not fit the manifest.
    """
    try:
        with (path / INDEX).open("rb") as stream:
            return _map_index(stream, manifest, where=str(path / INDEX))
    except OSError as error:
        hint = way_out(error, "write the shard set again")
        raise DataError(f"{path / INDEX} cannot be read ({error})", hint=hint) from None


def _open_index(backend: Backend) -> np.ndarray:
    """Maps the index, after a look at whether it is the manifest's.

    Raises:
        DataError: it is not, or cannot be read.
    """
    where = backend.name(INDEX)
    try:
        with os.fdopen(OPEN_FILES.opened(backend.open_index), "rb") as stream:
            index = _map_index(stream, backend.manifest, where=where)
            stream.seek(0)
            digest = hashlib.sha256()
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        hint = way_out(error, "write the shard set again")
        raise DataError(f"{where} cannot be read ({error})", hint=hint) from None
    if digest.hexdigest() != backend.manifest.index_sha256:
        problem = f"{where} is not the index that the manifest was written with"
        raise DataError(problem, hint="write the shard set again, or restore its files")
    return index


def _map_index(stream: BinaryIO, manifest: Manifest, *, where: str) -> np.ndarray:
    try:
        version = np.lib.format.read_magic(stream)
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
        if dtype != np.int64 or fortran_order or shape != (manifest.num_samples, 4):
            problem = f"{where} has shape {shape} ({dtype}) for {manifest.num_samples} samples"
            raise DataError(problem, hint="write the shard set again")
        del version
        index = np.memmap(stream, dtype=np.int64, mode="r", offset=stream.tell(), shape=shape)
    except (ValueError, EOFError) as error:
        raise DataError(f"{where} cannot be read ({error})", hint="write the shard set again") from None
    _check_bounds(index, manifest, where=where)
    return index


def _check_bounds(index: np.ndarray, manifest: Manifest, *, where: str) -> None:
    """Raises DataError for a sample outside of its shard: memory for it is asked for before it is read."""
    num_bytes = np.array([shard.num_bytes for shard in manifest.shards], dtype=np.int64)
    for first in range(0, len(index), _CHUNK):
        shards, offsets, sizes, _ = np.asarray(index[first : first + _CHUNK]).T
        outside = (shards < 0) | (shards >= len(num_bytes)) | (offsets < 0) | (sizes < 0)
        # Unlike offset + size, this cannot overflow.
        outside |= sizes > num_bytes[shards.clip(0, len(num_bytes) - 1)] - offsets
        if outside.any():
            number = first + int(outside.argmax())
            problem = f"{where} places sample {number} outside of its shard"
            raise DataError(problem, hint="write the shard set again, or restore its files")
