"""One shard: a tar file in WebDataset's layout, a sample's members sharing a key: the name up to its base's first dot.

Ours hold `KEY.EXTENSION` (the image file as it was) and `KEY.cls` (its label), or `KEY.json` (an episode); their bytes
depend on the samples alone: no times, fixed owner and mode. Those of others may hold anything else beside that.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Int64
from webdataset.writer import TarWriter

from framework.core.io import atomic_write
from framework.core.text_files import decode_text, parse_json, refuse_half_characters
from framework.data.images.decoding import IMAGE_SUFFIXES
from framework.data.shards.manifest import Kind
from framework.data.shards.tar import Member, walk_tar

SHARD_NAME = re.compile(r"shard-\d{6}\.tar")
NO_LABEL = -1
_OWNER = "framework"
_IMAGES = frozenset(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)
_MAX_LABEL_BYTES = 4096
_META = re.compile(r"__[^/]*__($|/)")  # WebDataset keeps notes of its own in such members.


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample on its way into a shard.

    Attributes:
        key: number of its file in the listing of the source, unreadable ones counted.
        suffix: of the member, without a dot.
        data: the file's bytes.
        label: class number; None for an episode.
    """

    key: int
    suffix: str
    data: bytes
    label: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """One sample in a shard: the member that a reader gets, and the text of its label (None for an episode)."""

    member: Member
    label: str | None


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What is in a shard.

    Attributes:
        kind: of all its samples; None when there is none.
        samples: in the order of the shard.
        ignored: numbers of members that nobody asked for, by suffix.
    """

    kind: Kind | None
    samples: tuple[Found, ...]
    ignored: Counter[str]


def write_shard(path: Path, samples: Iterable[Sample]) -> None:
    """Writes a shard that is whole or not there.

    Raises:
        OSError: it cannot be written; `filename` is set.
    """
    with atomic_write(path) as stream:
        writer = TarWriter(stream, user=_OWNER, group=_OWNER, mode=0o644, mtime=0, encoder=False)
        try:
            for sample in samples:
                members: dict[str, str | bytes] = {"__key__": f"{sample.key:09d}", sample.suffix: sample.data}
                if sample.label is not None:
                    members["cls"] = b"%d" % sample.label
                writer.write(members)
            writer.close()
        except BaseException:
            # Left open, its destructor would try to write once more and print what it meets.
            with suppress(OSError):
                writer.close()
            raise


def scan_shard(path: Path, *, max_member_bytes: int | None = None, label_key: str | None = None) -> Scan:
    """Finds the samples of a shard, whoever wrote it.

    Args:
        path: the shard.
        max_member_bytes: no member may be larger.
        label_key: key of the label in the JSON member of an image that has no `cls` member.

    Raises:
        OSError, tarfile.TarError, ValueError, OverflowError (`tar.UNREADABLE`): it cannot be read, or is not of
            this layout; the message says where.
    """
    images: dict[str, Member] = {}
    labels: dict[str, Member] = {}
    documents: dict[str, Member] = {}
    ignored: Counter[str] = Counter()
    with path.open("rb") as stream:
        for member in walk_tar(stream, max_member_bytes=max_member_bytes):
            folder, slash, base = member.name.rpartition("/")
            stem, _, suffix = base.partition(".")
            suffix = suffix.lower()
            known = images if suffix in _IMAGES else {"cls": labels, "json": documents}.get(suffix)
            if known is None or not stem or _META.match(member.name):
                ignored[suffix] += 1
                continue
            key = f"{folder}{slash}{stem}"
            if key in known:
                raise ValueError(f"two members for key {key!r}: {known[key].name!r} and {member.name!r}")
            known[key] = member
        lonely = labels.keys() - images.keys()
        if lonely:
            raise ValueError(f"sample {min(lonely)!r} has a label but no image")
        if not images:
            found = [Found(member=member, label=None) for member in documents.values()]
            return Scan(kind="episodes" if found else None, samples=tuple(found), ignored=ignored)
        lonely = documents.keys() - images.keys()
        if lonely:
            raise ValueError(f"sample {min(lonely)!r} has no image, but others have one")
        found = [
            Found(member=member, label=_label(stream, key, labels.get(key), documents.get(key), label_key))
            for key, member in images.items()
        ]
    return Scan(kind="images", samples=tuple(found), ignored=ignored)


def index_rows(samples: Iterable[Found], classes: Mapping[str, int]) -> Int64[np.ndarray, "sample column"]:
    """Where the samples of a shard lie: int64 rows (offset in bytes, size in bytes, label), in their order.

    Args:
        samples: what `scan_shard` found.
        classes: numbers of the class names; a label that is none of them is a number itself.

    Raises:
        ValueError: a label that is neither.
    """
    rows = [(each.member.offset, each.member.size, _number(each, classes)) for each in samples]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def _number(found: Found, classes: Mapping[str, int]) -> int:
    if found.label is None:
        return NO_LABEL
    if found.label in classes:
        return classes[found.label]
    if not found.label.isdecimal():
        raise ValueError(f"member {found.member.name!r} has the label {found.label!r}, which is not a class")
    return int(found.label)


def _label(stream: BinaryIO, key: str, label: Member | None, document: Member | None, label_key: str | None) -> str:
    """The text of an image's label.

    Raises:
        ValueError: it has none, or one that is neither text nor a number.
    """
    if label is not None:
        if label.size > _MAX_LABEL_BYTES:
            raise ValueError(f"member {label.name!r} has {label.size:,} bytes, too many for a label")
        stream.seek(label.offset)
        return _usable(decode_text(stream.read(label.size)).strip(), label.name)
    if document is None:
        raise ValueError(f"sample {key!r} lacks its label (a member {key}.cls or {key}.json)")
    stream.seek(document.offset)
    record = parse_json(stream.read(document.size))
    value = record.get(label_key) if isinstance(record, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | str):
        keys = ", ".join(sorted(record)[:8]) if isinstance(record, dict) else "no object"
        raise ValueError(f"member {document.name!r} has no label under the key {label_key!r} ({keys})")
    refuse_half_characters(value)
    return _usable(str(value).strip(), document.name)


def _usable(text: str, name: str) -> str:
    if not text or text.startswith("-"):
        raise ValueError(f"member {name!r} has the label {text!r}; labels are numbers from 0 or names")
    return text
