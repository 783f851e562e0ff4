"""One shard: a tar file in WebDataset's layout, a sample's members sharing a key: the name up to its base's first dot.

Ours hold `KEY.EXTENSION` (the image file as it was) and `KEY.cls` (its label), or `KEY.json` (an episode); their bytes
depend on the samples alone: no times, fixed owner and mode. Those of others may hold anything else beside that.
"""

import json
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
from framework.core.text_files import decode_text, parse_json
from framework.data.archives.names import printable
from framework.data.archives.tar import Member, walk_tar
from framework.data.images.formats import image_suffixes
from framework.data.shards.labels import whole_number
from framework.data.shards.manifest import Kind

SHARD_NAME = re.compile(r"shard-\d{6}\.tar")
NO_LABEL = -1
_OWNER = "framework"
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
        dotted: members of samples whose key has a dot, so that a part of it was taken for their suffix.
        num_texts: samples whose label is in a `txt` member.
    """

    kind: Kind | None
    samples: tuple[Found, ...]
    ignored: Counter[str]
    dotted: tuple[str, ...] = ()
    num_texts: int = 0


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


def scan_shard(
    path: Path, *, max_member_bytes: int | None = None, label_key: str | None = None, labelled: bool = True
) -> Scan:
    """Finds the samples of a shard, whoever wrote it.

    The label of an image is in its `cls` member, or under `label_key` in its `json` member, or in its `txt` member.

    Args:
        path: the shard.
        max_member_bytes: no member may be larger.
        label_key: key of the label in the JSON member of an image that has no `cls` member.
        labelled: images need labels; without it all have the label 0, whatever stands beside them.

    Raises:
        OSError, tarfile.TarError, ValueError, OverflowError (`tar.UNREADABLE`): it cannot be read, or is not of
            this layout; the message says where.
    """
    with path.open("rb") as stream:
        members = _sort_members(walk_tar(stream, max_member_bytes=max_member_bytes))
        images, labels, documents, texts = (members.by_kind[kind] for kind in ("image", "cls", "json", "txt"))
        lonely = labels.keys() - images.keys() if labelled else ()
        if lonely:
            raise ValueError(f"sample {min(lonely)!r} has a label but no image")
        ignored, dotted = members.ignored, members.dotted_keys()
        if not images:
            ignored.update({"txt": len(texts)} if texts else {})
            found = [Found(member=member, label=None) for member in documents.values()]
            kind = "episodes" if found else None
            return Scan(kind=kind, samples=tuple(found), ignored=ignored, dotted=dotted)
        if not labelled:
            beside = {"cls": len(labels), "json": len(documents), "txt": len(texts)}
            ignored.update({suffix: count for suffix, count in beside.items() if count})
            found = [Found(member=member, label="0") for member in images.values()]
            return Scan(kind="images", samples=tuple(found), ignored=ignored, dotted=dotted)
        lonely = documents.keys() - images.keys()
        if lonely:
            raise ValueError(f"sample {min(lonely)!r} has no image, but others have one")
        found: list[Found] = []
        num_texts = 0
        for key, member in images.items():
            label = _label(stream, labels.get(key), documents.get(key), label_key, has_text=key in texts)
            if label is None and key in texts:
                num_texts += 1
                label = _usable(_read_text(stream, texts[key]), texts[key].name)
            if label is None:
                raise ValueError(f"sample {key!r} lacks its label (a member {key}.cls, {key}.json or {key}.txt)")
            found.append(Found(member=member, label=label))
    ignored.update({"txt": len(texts) - num_texts} if len(texts) > num_texts else {})
    return Scan(kind="images", samples=tuple(found), ignored=ignored, dotted=dotted, num_texts=num_texts)


@dataclass(frozen=True, kw_only=True)
class _Members:
    """The members of a shard.

    Attributes:
        by_kind: for `image`, `cls`, `json` and `txt` the members by their keys.
        ignored: numbers of the others by suffix.
        dotted: of those whose suffix has a dot, and would be read without what is before it: name, key, the name
            without the last part of the suffix, and that part's kind.
    """

    by_kind: dict[str, dict[str, Member]]
    ignored: Counter[str]
    dotted: list[tuple[str, str, str, str]]

    def dotted_keys(self) -> tuple[str, ...]:
        """The members whose key has a dot; of the other dotted ones (`x.mask.png` beside `x.png`), `ignored` counts."""
        labelled = {stem for _, _, stem, kind in self.dotted if kind == "cls"}
        names: list[str] = []
        for name, key, stem, _ in self.dotted:
            if stem in labelled or key not in self.by_kind["image"]:
                names.append(name)
            else:
                self.ignored[name.removeprefix(f"{key}.").lower()] += 1
        return tuple(names)


def _sort_members(members: Iterable[Member]) -> _Members:
    """Raises ValueError for two members of a kind for one key."""
    found = _Members(by_kind={kind: {} for kind in ("image", "cls", "json", "txt")}, ignored=Counter(), dotted=[])
    for member in members:
        folder, slash, base = member.name.rpartition("/")
        stem, _, suffix = base.partition(".")
        key, suffix = f"{folder}{slash}{stem}", suffix.lower()
        kind = _kind_of(suffix)
        if not stem or _META.match(member.name):
            found.ignored[suffix] += 1
        elif kind is not None:
            known = found.by_kind[kind]
            if key in known:
                raise ValueError(f"two members for key {key!r}: {known[key].name!r} and {member.name!r}")
            known[key] = member
        elif "." in suffix and (kind := _kind_of(suffix.rpartition(".")[2])) is not None:
            found.dotted.append((member.name, key, member.name.rpartition(".")[0], kind))
        else:
            found.ignored[suffix] += 1
    return found


def _kind_of(suffix: str) -> str | None:
    return suffix if suffix in ("cls", "json", "txt") else "image" if suffix in image_suffixes() else None


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
    number = whole_number(found.label)
    if number is None:
        raise ValueError(f"member {found.member.name!r} has the label {found.label!r}, which is not a class")
    return number


def _label(
    stream: BinaryIO, label: Member | None, document: Member | None, label_key: str | None, *, has_text: bool
) -> str | None:
    """The text of an image's label in its `cls` or `json` member; None where neither is there.

    Args:
        stream: the shard.
        label: the `cls` member.
        document: the `json` member.
        label_key: key of the label in it.
        has_text: there is a `txt` member, so that a JSON member without the key is something else.

    Raises:
        ValueError: one that is neither text nor a number.
    """
    if label is not None:
        return _usable(_read_text(stream, label), label.name)
    if document is None:
        return None
    stream.seek(document.offset)
    try:
        record = parse_json(stream.read(document.size))
    except ValueError as error:
        raise ValueError(f"member {document.name!r} is {error}") from None
    value = record.get(label_key) if isinstance(record, dict) else None
    if value is None and has_text:
        return None
    if value is None:
        keys = ", ".join(sorted(record)[:8]) if isinstance(record, dict) else "no object"
        raise ValueError(f"member {document.name!r} has no label under the key {label_key!r} ({keys})")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"member {document.name!r} has the label {json.dumps(value)}; labels are numbers or names")
    return _usable(str(value).strip(), document.name)


def _read_text(stream: BinaryIO, member: Member) -> str:
    if member.size > _MAX_LABEL_BYTES:
        raise ValueError(f"member {member.name!r} has {member.size:,} bytes, too many for a label")
    stream.seek(member.offset)
    try:
        return decode_text(stream.read(member.size)).strip()
    except ValueError as error:
        raise ValueError(f"member {member.name!r} is {error}") from None


def _usable(text: str, name: str) -> str:
    if not text or text.startswith("-") or "\n" in text or printable(text) != text:
        raise ValueError(f"member {name!r} has the label '{printable(text)}'; labels are numbers from 0 or names")
    return text
