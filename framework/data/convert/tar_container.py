"""Tar archives: as they are, or packed with gzip, bzip2 or xz. Nothing is unpacked to the disk."""

import bz2
import io
import lzma
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from framework.core.errors import DataError
from framework.data.archives.gzip_stream import GzipStream, Places
from framework.data.archives.names import printable
from framework.data.archives.tar import MAX_MEMBER_BYTES, UNREADABLE, Entry, described, part_of, walk_entries
from framework.data.convert.contents import ArchiveEntry, Contents, arrange_archive, identity_of, too_large
from framework.data.shards.writer import SourceFile


class TarContainer:
    """A tar archive; threads read it by position."""

    _in_order = False

    def __init__(self, source: Path) -> None:
        self._source = source
        self._stream = source.open("rb")

    def contents(self, *, folder: str, follow_links: bool) -> Contents:
        """All members, those that are named twice by the last one. Raises DataError for a damaged archive."""
        folders: list[str] = []
        try:
            entries = list(self._entries(folders))
        except (*UNREADABLE, EOFError, lzma.LZMAError) as error:
            problem = f"{self._source} cannot be read ({printable(str(error))})"
            raise DataError(problem, hint="make or fetch the archive again") from None
        return arrange_archive(
            entries,
            folders,
            identity=identity_of(self._source),
            folder=folder,
            follow_links=follow_links,
            in_order=self._in_order,
        )

    def read(self, file: SourceFile) -> bytes:
        """A member's bytes. Raises OSError, or ValueError for one that is too large or an archive that was cut."""
        if file.size > MAX_MEMBER_BYTES:
            raise ValueError(too_large(file.size))
        data = self._read_at(file.offset, file.size)
        if len(data) != file.size:
            raise ValueError(f"{self._source} ends after {len(data)} of {file.size} bytes")
        return data

    def close(self) -> None:
        """Closes the archive."""
        self._stream.close()

    def _open(self) -> io.BufferedIOBase:
        self._stream.seek(0)
        return cast("io.BufferedIOBase", self._stream)

    def _read_at(self, offset: int, size: int) -> bytes:
        return os.pread(self._stream.fileno(), size, offset)

    def _entries(self, folders: list[str]) -> Iterator[ArchiveEntry]:
        for entry in walk_entries(self._open()):
            if entry.kind == "folder":
                folders.append(entry.name)
            else:
                yield _archive_entry(entry)


class PackedTarContainer(TarContainer):
    """A tar archive that is packed as a whole; each thread unpacks it on its own, and best in the archive's order."""

    _in_order = True

    def __init__(self, source: Path) -> None:
        super().__init__(source)
        self._own = threading.local()

    def _open(self) -> io.BufferedIOBase:
        """The archive, unpacked, from its start."""
        raise NotImplementedError

    def _whole(self) -> io.BufferedReader:
        """The packed file, for one thread."""
        return part_of(self._stream, offset=0, size=os.fstat(self._stream.fileno()).st_size)

    def _read_at(self, offset: int, size: int) -> bytes:
        stream: BinaryIO | None = getattr(self._own, "stream", None)
        if stream is None:
            stream = self._own.stream = cast("BinaryIO", self._open())
        stream.seek(offset)
        return stream.read(size)


class GzipTarContainer(PackedTarContainer):
    """One that is packed with gzip: unpacking begins at the places that listing it has kept."""

    def __init__(self, source: Path) -> None:
        super().__init__(source)
        self._places = Places()

    def _open(self) -> io.BufferedIOBase:
        return io.BufferedReader(GzipStream(self._stream.fileno(), self._places), buffer_size=1 << 16)


class Bzip2TarContainer(PackedTarContainer):
    """One that is packed with bzip2: each thread unpacks it from its start."""

    def _open(self) -> io.BufferedIOBase:
        return bz2.BZ2File(self._whole())


class XzTarContainer(PackedTarContainer):
    """One that is packed with xz: each thread unpacks it from its start."""

    def _open(self) -> io.BufferedIOBase:
        return lzma.LZMAFile(self._whole())


def _archive_entry(entry: Entry) -> ArchiveEntry:
    if entry.kind == "file":
        return ArchiveEntry(
            name=entry.name, file=SourceFile(path=entry.name, label=None, offset=entry.offset, size=entry.size)
        )
    if entry.kind in ("link", "hard link"):
        return ArchiveEntry(name=entry.name, target=entry.target, is_hard=entry.kind == "hard link")
    return ArchiveEntry(name=entry.name, problem=f"{described(entry)}, not a regular file")
