"""One shard: a tar file in WebDataset's layout, `KEY.EXTENSION` (the image file as it was) and `KEY.cls` (its label).

Its bytes depend on the images alone: no times, fixed owner and mode.
"""

import re
import tarfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from webdataset.writer import TarWriter

from framework.files import written_whole

MEMBER_NAME = re.compile(r"(\d{9})\.([a-z0-9]+)")
SHARD_NAME = re.compile(r"shard-\d{6}\.tar")
_OWNER = "framework"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image on its way into a shard.

    Attributes:
        key: number of its file in the sorted listing of the source, unreadable ones counted.
        path: its path inside the source; the suffix becomes the member's.
        data: the image file's bytes.
        label: class number.
    """

    key: int
    path: str
    data: bytes
    label: int


def write_shard(path: Path, samples: Iterable[Sample]) -> None:
    """Writes a shard that is whole or not there.

    Raises:
        OSError: it cannot be written; `filename` is set.
    """
    with written_whole(path) as stream:
        writer = TarWriter(stream, user=_OWNER, group=_OWNER, mode=0o644, mtime=0, encoder=False)
        try:
            for sample in samples:
                suffix = PurePosixPath(sample.path).suffix.lower().removeprefix(".")
                # WebDataset's users ask for "jpg".
                suffix = {"jpeg": "jpg", "tif": "tiff"}.get(suffix, suffix)
                writer.write({"__key__": f"{sample.key:09d}", suffix: sample.data, "cls": b"%d" % sample.label})
            writer.close()
        except BaseException:
            # Left open, its destructor would try to write once more and print what it meets.
            with suppress(OSError):
                writer.close()
            raise


def index_shard(path: Path) -> np.ndarray:
    """Where the images of a shard lie.

    Args:
        path: the shard.

    Returns:
        int64 rows (offset of the image in bytes, its size in bytes, its label), in the order of the shard.

    Raises:
        OSError, tarfile.TarError: it cannot be read, or is no tar file.
        ValueError: it is one, but not of this layout; the message says where.
    """
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            name = MEMBER_NAME.fullmatch(member.name)
            if name is None or not member.isreg():
                raise ValueError(f"unexpected member {member.name!r}")
            key, suffix = name.groups()
            seen = labels if suffix == "cls" else images
            if key in seen:
                raise ValueError(f"two members for {member.name!r}")
            if suffix == "cls":
                stream = archive.extractfile(member)
                assert stream is not None, "a regular member has contents"
                labels[key] = int(stream.read())
            else:
                images[key] = (member.offset_data, member.size)
    if images.keys() != labels.keys():
        raise ValueError(f"sample {min(images.keys() ^ labels.keys())} lacks its image or its label")
    rows = [(offset, size, labels[key]) for key, (offset, size) in images.items()]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)
