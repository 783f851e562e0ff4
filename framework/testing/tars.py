"""Small tar archives, made by hand, so that anything may be wrong with them."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image


def write_tar(path: Path, members: Iterable[tuple[str | tarfile.TarInfo, bytes]]) -> Path:
    """Writes members as they are given, a name or a whole header each, one after the other."""
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            header = tarfile.TarInfo(name) if isinstance(name, str) else name
            header.size = header.size or len(data)
            archive.addfile(header, io.BytesIO(data) if header.isreg() else None)
    return path


def image_bytes(tint: int, *, size: int = 8, format: str = "PNG") -> bytes:
    """An image file of one gray.

    Args:
        tint: the gray, 0 to 255.
        size: side in pixels.
        format: Pillow's name of the file format.
    """
    stream = io.BytesIO()
    Image.new("RGB", (size, size), (tint, tint, tint)).save(stream, format=format)
    return stream.getvalue()
