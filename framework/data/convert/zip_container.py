"""A zip archive."""

import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

from framework.core.errors import DataError
from framework.data.archives.tar import MAX_MEMBER_BYTES
from framework.data.convert.contents import ArchiveEntry, Contents, arrange_archive, too_large
from framework.data.shards.writer import SourceFile

_ENCRYPTED = 1
_LONGEST_TARGET = 4096
# The others are decompressed by Python's zipfile without a bound: 45 bytes of bzip2 may become 46 MB at once.
_BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_METHODS = {9: "deflate64", zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "lzma", 93: "zstd"}
_WINDOWS = 0


class ZipContainer:
    """A zip archive; the members are read where they are."""

    def __init__(self, source: Path) -> None:
        self._source = source
        try:
            self._archive = zipfile.ZipFile(source)
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise DataError(f"{source} is a damaged zip archive ({error})", hint="make or fetch it again") from None
        self._members = self._archive.infolist()

    def contents(self, *, folder: str, follow_links: bool) -> Contents:
        """All members, those that are named twice by the last one."""
        return arrange_archive(
            self._entries(),
            (_name(member) for member in self._members if _is_folder(member)),
            # The members' checksums tell them apart, in whatever archive.
            identity="zip",
            folder=folder,
            follow_links=follow_links,
        )

    def read(self, file: SourceFile) -> bytes:
        """A member's bytes. Raises ValueError, OSError, or what zipfile makes of a damaged archive."""
        member = self._members[file.offset]
        if member.file_size > MAX_MEMBER_BYTES:
            raise ValueError(too_large(member.file_size))
        with self._archive.open(member) as stream:
            return stream.read(member.file_size)

    def close(self) -> None:
        """Closes the archive."""
        self._archive.close()

    def _entries(self) -> Iterator[ArchiveEntry]:
        """Files and links; a file's `offset` is its place in the list of members."""
        for number, member in enumerate(self._members):
            if _is_folder(member):
                continue
            name, problem = _name(member), _problem(member)
            mode = member.external_attr >> 16
            if problem:
                yield ArchiveEntry(name=name, problem=problem)
            elif stat.S_ISLNK(mode):
                yield self._link(name, member)
            else:
                file = SourceFile(path=name, label=None, offset=number, size=member.file_size, stamp=member.CRC)
                yield ArchiveEntry(name=name, file=file)

    def _link(self, name: str, member: zipfile.ZipInfo) -> ArchiveEntry:
        """A symbolic link: its contents are its target."""
        if member.file_size > _LONGEST_TARGET:
            return ArchiveEntry(name=name, problem=f"a link with a target of {member.file_size:,} bytes")
        try:
            target = self._archive.read(member).decode()
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            return ArchiveEntry(name=name, problem=f"a link that cannot be read ({error})")
        return ArchiveEntry(name=name, target=target)


def _is_folder(member: zipfile.ZipInfo) -> bool:
    return _name(member).endswith("/")


def _name(member: zipfile.ZipInfo) -> str:
    """The member's path; some programs on Windows write it with backslashes."""
    return member.filename.replace("\\", "/") if member.create_system == _WINDOWS else member.filename


def _problem(member: zipfile.ZipInfo) -> str:
    if member.flag_bits & _ENCRYPTED:
        return "encrypted"
    if member.compress_type not in _BOUNDED:
        name = _METHODS.get(member.compress_type, f"method {member.compress_type}")
        return f"compressed with {name}, which cannot be bounded: pack the zip with deflate"
    return ""
