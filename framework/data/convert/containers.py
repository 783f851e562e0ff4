"""What users bring images in: a folder, a zip, a tar or a packed tar. Each lists its files and reads them."""

import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from framework.core.errors import DataError
from framework.data.convert.contents import Contents
from framework.data.convert.folder_container import FolderContainer
from framework.data.convert.tar_container import (
    Bzip2TarContainer,
    GzipTarContainer,
    TarContainer,
    XzTarContainer,
)
from framework.data.convert.zip_container import ZipContainer
from framework.data.shards.writer import SourceFile

HINT = "give a folder of images, a .zip, a .tar or a .tar.gz (.bz2, .xz) of one"
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
_NOT_READ = {b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf": "7z", b"Rar!": "rar"}


class Container(Protocol):
    """An open container; threads may share it."""

    def contents(self, *, folder: str, follow_links: bool) -> Contents:
        """Lists one of its folders. Raises DataError where it is damaged, OSError where it cannot be read."""
        ...

    def read(self, file: SourceFile) -> bytes:
        """The bytes of a file. Raises OSError, or ValueError for what is damaged or larger than it may be."""
        ...

    def close(self) -> None:
        """Closes its file."""
        ...


@contextmanager
def open_container(source: Path) -> Iterator[Container]:
    """Opens whatever a source is, by its bytes and not by its name.

    Raises:
        DataError: it does not exist, cannot be read, or is nothing of the kind.
    """
    if not source.exists():
        raise DataError(f"no images at {source}: it does not exist", hint=HINT)
    kinds: dict[str, Callable[[Path], Container]] = {
        "folder": FolderContainer,
        "tar": TarContainer,
        "gzip": GzipTarContainer,
        "bzip2": Bzip2TarContainer,
        "xz": XzTarContainer,
        "zip": ZipContainer,
    }
    try:
        container = kinds[_kind_of(source)](source)
    except OSError as error:
        raise DataError(f"{source} cannot be read ({error.strerror or error})", hint=HINT) from None
    try:
        yield container
    finally:
        container.close()


def _kind_of(source: Path) -> str:
    if source.is_dir():
        return "folder"
    if not source.is_file():
        raise DataError(f"{source} is neither a folder nor a file", hint=HINT)
    with source.open("rb") as stream:
        head = stream.read(512)
    if head[257:262] == b"ustar":
        return "tar"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    for magic, name in _PACKED.items():
        if head.startswith(magic):
            return name
    for magic, name in _NOT_READ.items():
        if head.startswith(magic):
            raise DataError(f"{source} is packed with {name}, which is not read", hint=HINT)
    # A zip may begin with anything, such as a program that unpacks it; a tar of before 1988 has no mark.
    if zipfile.is_zipfile(source):
        return "zip"
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.TarError:
        raise DataError(f"{source} is neither a folder, nor a zip, nor a tar archive", hint=HINT) from None
    return "tar"
