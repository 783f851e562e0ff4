"""Tar archives that come from anywhere: every member is safe to name and lies where its header says, to its end."""

import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

# What reading a broken archive may raise; ValueError is `walk_tar`'s own, and tarfile's for numbers that are none.
UNREADABLE = (OSError, tarfile.TarError, ValueError, OverflowError)
MAX_MEMBER_BYTES = 256 << 20
_BLOCK = 512
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A regular file in an archive.

    Attributes:
        name: its path, a leading `./` removed.
        offset: of its first byte in the archive.
        size: in bytes.
    """

    name: str
    offset: int
    size: int


def walk_tar(stream: io.BufferedIOBase, *, max_member_bytes: int | None = MAX_MEMBER_BYTES) -> Iterator[Member]:
    """The regular files of an uncompressed tar archive, in its order; folders are passed over.

    Python's tarfile takes a damaged header, and an archive cut between two members, for the end of the archive; here
    only the end mark, with nothing but zeros after it, is an end. The stream may be moved between two members.

    Args:
        stream: the archive, seekable.
        max_member_bytes: no member may be larger; None for no bound.

    Raises:
        OSError, tarfile.TarError, ValueError, OverflowError (`UNREADABLE`): it cannot be read, is truncated or
            damaged, or has a member that is a link, a device, sparse, too large, named twice, or whose path is
            absolute or has `..` in it; the message names the member.
    """
    names: set[str] = set()
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        while (member := archive.next()) is not None:
            # tarfile would keep them all.
            archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue] - not in the stubs
            name = member.name
            if name.startswith("/") or ".." in name.split("/"):
                raise ValueError(f"member {name!r} points outside of the archive")
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise ValueError(f"member {name!r} is {_kind_of(member)}, not a regular file")
            if member.size < 0 or (max_member_bytes is not None and member.size > max_member_bytes):
                raise ValueError(f"member {name!r} has {member.size:,} bytes, more than {max_member_bytes:,}")
            name = name.removeprefix("./")
            if name in names:
                raise ValueError(f"two members are named {name!r}")
            names.add(name)
            yield Member(name=name, offset=member.offset_data, size=member.size)
        end = archive.offset
    _check_end(stream, end)


def member_name(header: bytes) -> str:
    """The name in the 512 bytes before a member's data; cut at 100 bytes where the archive keeps longer ones apart.

    Raises:
        tarfile.TarError: no tar header.
    """
    return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").name


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

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        wanted = max(0, min(len(buffer), self._size - self._position))
        data = os.pread(self._descriptor, wanted, self._offset + self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _kind_of(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return f"a link to {member.linkname!r}"
    return "a sparse file" if member.issparse() else "a device, a pipe or something unknown"


def _check_end(stream: io.BufferedIOBase, end: int) -> None:
    stream.seek(end)
    if len(mark := stream.read(_BLOCK)) < _BLOCK:
        raise ValueError(f"truncated: it stops at byte {end + len(mark):,} without the end mark of a tar archive")
    while mark:
        if mark.strip(b"\0"):
            raise ValueError(f"damaged: from byte {end:,} on there are neither members nor the end of the archive")
        mark = stream.read(_CHUNK)
