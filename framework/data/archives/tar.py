"""Tar archives that come from anywhere: every member is safe to name and lies where its header says, to its end."""

import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal, cast

from framework.data.archives.names import printable

# What reading a broken archive may raise; ValueError is `walk_tar`'s own, and tarfile's for numbers that are none.
UNREADABLE = (OSError, tarfile.TarError, ValueError, OverflowError)
MAX_MEMBER_BYTES = 256 << 20
_MAX_HEADER_BYTES = 1 << 20
_BLOCK = 512
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A regular file in an archive.

    Attributes:
        name: its path, a leading `./` removed, bytes that are not UTF-8 escaped.
        offset: of its first byte in the archive.
        size: in bytes.
    """

    name: str
    offset: int
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """Anything in an archive.

    Attributes:
        name: as it is written there; bytes that are not UTF-8 as surrogates.
        kind: what it is.
        target: of a link, as it is written there.
        offset: of its first byte in the archive.
        size: in bytes.
    """

    name: str
    kind: Literal["file", "folder", "link", "hard link", "sparse file", "device"]
    target: str
    offset: int
    size: int


def walk_tar(stream: io.BufferedIOBase, *, max_member_bytes: int | None = MAX_MEMBER_BYTES) -> Iterator[Member]:
    """The regular files of an uncompressed tar archive, in its order; folders are passed over.

    The stream may be moved between two members.

    Args:
        stream: the archive, seekable.
        max_member_bytes: no member may be larger; None for no bound.

    Raises:
        OSError, tarfile.TarError, ValueError, OverflowError (`UNREADABLE`): it cannot be read, is truncated or
            damaged, or has a member that is a link, a device, sparse, too large, named twice, or whose path is
            absolute or has `..` in it; the message names the member.
    """
    names: set[str] = set()
    for entry in walk_entries(stream):
        name = printable(entry.name)
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"member {name!r} points outside of the archive")
        if entry.kind == "folder":
            continue
        if entry.kind != "file":
            raise ValueError(f"member {name!r} is {described(entry)}, not a regular file")
        if max_member_bytes is not None and entry.size > max_member_bytes:
            raise ValueError(f"member {name!r} has {entry.size:,} bytes, more than {max_member_bytes:,}")
        name = name.removeprefix("./")
        if name in names:
            raise ValueError(f"two members are named {name!r}")
        names.add(name)
        yield Member(name=name, offset=entry.offset, size=entry.size)


def walk_entries(stream: io.BufferedIOBase) -> Iterator[Entry]:
    """All that is in an uncompressed tar archive, in its order, safe or not.

    Python's tarfile takes a damaged header, and an archive cut between two members, for the end of the archive; here
    only the end mark, with nothing but zeros after it, is an end. The stream may be moved between two members.

    Raises:
        OSError, tarfile.TarError, ValueError, OverflowError (`UNREADABLE`): it cannot be read, is truncated or damaged.
    """
    with tarfile.open(
        fileobj=cast("BinaryIO", _Headers(stream)),
        mode="r:",
        encoding="utf-8",
        errors="surrogateescape",
    ) as archive:
        while (member := _next(archive)) is not None:
            # tarfile would keep them all.
            archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue] - not in the stubs
            if member.size < 0:
                raise ValueError(f"member {printable(member.name)!r} has {member.size} bytes")
            yield Entry(
                name=member.name,
                kind=_kind_of(member),
                target=member.linkname,
                offset=member.offset_data,
                size=member.size,
            )
        end = archive.offset
    _check_end(stream, end)


def described(entry: Entry) -> str:
    """What an entry that is not a regular file is, for messages."""
    if entry.kind in ("link", "hard link"):
        return f"a link to {printable(entry.target)!r}"
    return "a sparse file" if entry.kind == "sparse file" else "a device, a pipe or something unknown"


def member_name(header: bytes) -> str:
    """The name in the 512 bytes before a member's data; cut at 100 bytes where the archive keeps longer ones apart.

    Raises:
        tarfile.TarError: no tar header.
    """
    return printable(tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").name)


def part_of(stream: io.BufferedIOBase, *, offset: int, size: int) -> io.BufferedReader:
    """A part of an open file as a file of its own, such as an archive inside an archive; read by position.

    Args:
        stream: of the whole file.
        offset: first byte of the part.
        size: its bytes.
    """
    return io.BufferedReader(_Part(stream.fileno(), offset, size), buffer_size=1 << 16)


class _Part(io.RawIOBase):
    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        self._descriptor, self._offset, self._size, self._position = descriptor, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        wanted = max(0, min(len(buffer), self._size - self._position))
        data = os.pread(self._descriptor, wanted, self._offset + self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


class _Headers:
    """What tarfile reads of an archive: headers. One that says it is longer than any name is not read."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self.tell, self.seek = stream.tell, stream.seek

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise ValueError(f"a header at byte {self.tell():,} has {size:,} bytes, more than {_MAX_HEADER_BYTES:,}")
        return self._stream.read(size)


def _next(archive: tarfile.TarFile) -> tarfile.TarInfo | None:
    try:
        return archive.next()
    except RecursionError:
        raise ValueError("damaged: headers of headers without an end") from None


def _kind_of(
    member: tarfile.TarInfo,
) -> Literal["file", "folder", "link", "hard link", "sparse file", "device"]:
    if member.isdir():
        return "folder"
    if member.issym():
        return "link"
    if member.islnk():
        return "hard link"
    if member.issparse():
        return "sparse file"
    return "file" if member.isreg() else "device"


def _check_end(stream: io.BufferedIOBase, end: int) -> None:
    stream.seek(end)
    if len(mark := stream.read(_BLOCK)) < _BLOCK:
        raise ValueError(f"truncated: it stops at byte {end + len(mark):,} without the end mark of a tar archive")
    while mark:
        if mark.strip(b"\0"):
            raise ValueError(f"damaged: from byte {end:,} on there are neither members nor the end of the archive")
        mark = stream.read(_CHUNK)
