"""The manifest: what a shard set holds, written last, so that a set without one is known to be unfinished."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from framework.core.errors import ConfigError, DataError
from framework.core.io import atomic_write
from framework.core.serialization import from_json, parse_object, to_json
from framework.data.archives.names import printable
from framework.data.images.notes import ImageNote
from framework.data.images.options import DEFAULT, ReadOptions
from framework.data.open_files import way_out

MANIFEST = "manifest.json"
INDEX = "index.npy"
SOURCES = "sources.tsv"
UNCONDITIONAL = "all"
"""The one class of images without classes."""
FORMAT_VERSION = 1
Kind = Literal["images", "episodes"]


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A part of the source that is not a sample.

    Attributes:
        source: its path inside the source; for shards that others wrote SHARD/MEMBER. Bytes that are not UTF-8 are
            escaped, here and in the reason: a manifest is text.
        reason: why it was left out.
    """

    source: str
    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", printable(self.source))
        object.__setattr__(self, "reason", printable(self.reason))


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """One shard.

    Attributes:
        name: file name inside the set's folder.
        num_samples: samples in it.
        num_bytes: size of the file.
        sha256: of the file's bytes, in hexadecimal.
    """

    name: str
    num_samples: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a shard set holds.

    Attributes:
        classes: class names; a label is a position in it. None for episodes.
        class_counts: images of each class, in the same order.
        num_samples: samples in all.
        num_bytes: size of all shards.
        image_sizes: number of images of each size, as {"32x32": 50000}, width first.
        image_modes: number of images of each Pillow mode, as {"RGB": 50000}.
        shards: the shards, in the order of their samples; those of a shard have consecutive numbers.
        index_sha256: of the index file.
        skipped: what is not a sample, and why.
        kind: "images", or "episodes" for JSON objects, which have no label.
        label_key: for shards that others wrote, the key of the label in an image's JSON member; None for our own.
        unconditional: all images are of the one class, whatever labels stand beside them in shards of others.
        left_out: how much of the source is not in the set, by reason (numbers in it as N): the skipped parts, and files
            that are ignored for their names. Empty in sets of earlier versions.
        sources_sha256: of the file that says where each sample comes from; None where the set has none.
        read: how the image files become pixels; what older sets were not asked for has its default.
        notes: what was noticed about the images.
    """

    classes: tuple[str, ...]
    class_counts: tuple[int, ...]
    num_samples: int
    num_bytes: int
    image_sizes: dict[str, int]
    image_modes: dict[str, int]
    shards: tuple[ShardRecord, ...]
    index_sha256: str
    skipped: tuple[Skipped, ...]
    kind: Kind = "images"
    label_key: str | None = None
    unconditional: bool = False
    left_out: dict[str, int] = field(default_factory=dict)
    sources_sha256: str | None = None
    read: ReadOptions = DEFAULT
    notes: tuple[ImageNote, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of the kind, the class names, the index and the shards, in hexadecimal: what the set is.

        The index has the order of the samples and their labels, the shards their bytes; names of files do not count.
        How images are read does, where it is not the default.
        """
        parts = [self.kind, self.classes, self.index_sha256, [shard.sha256 for shard in self.shards]]
        if self.read != DEFAULT:
            parts.append(to_json(self.read))
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def write(self, folder: Path) -> None:
        """Writes the manifest into `folder`, whole or not at all."""
        record = {"format_version": FORMAT_VERSION, "kind": self.kind, **to_json(self)}
        with atomic_write(folder / MANIFEST) as stream:
            stream.write((json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())


def read_manifest(folder: Path) -> Manifest:
    """Reads the manifest of the shard set in `folder`.

    Raises:
        DataError: no shard set there, an unfinished one, or a manifest that cannot be understood.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise DataError(f"no shard set at {folder}", hint="write one with: framework shards images SOURCE DEST")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        hint = (
            "write it again with: framework shards images SOURCE DEST, "
            "or index shards that others wrote with: framework shards index SOURCE"
        )
        raise DataError(
            f"{folder} has no {MANIFEST}, so it is not a shard set, or an unfinished one", hint=hint
        ) from None
    except OSError as error:
        hint = way_out(error, "write the shard set again")
        raise DataError(f"{path} cannot be read ({error})", hint=hint) from None
    return parse_manifest(data, where=str(path))


def parse_manifest(data: bytes, *, where: str) -> Manifest:
    """The manifest in the bytes of a file, whose name is for messages.

    Raises:
        DataError: no JSON, another version or kind, a key that is missing or of a wrong type.
    """
    try:
        record = parse_object(data)
    except ValueError as error:
        raise DataError(f"{where} cannot be read ({error})", hint="write the shard set again") from None
    found = (record.pop("format_version", None), record.get("kind"))
    if found[0] != FORMAT_VERSION or found[1] not in get_args(Kind):
        expected = f"{FORMAT_VERSION} and {' or '.join(get_args(Kind))}"
        problem = f"{where} has format version {found[0]!r} and kind {found[1]!r}, not {expected}"
        raise DataError(problem, hint="write the shard set again with this version")
    try:
        manifest = from_json(Manifest, record, allow_missing=True)
        _check_digests(manifest)
    except (ValueError, ConfigError) as error:
        raise DataError(f"{where} is damaged ({error})", hint="write the shard set again") from None
    for shard in manifest.shards:
        if "/" in shard.name or "\\" in shard.name or shard.name.startswith(".") or not shard.name:
            problem = f"{where} names a shard {shard.name!r}, which is not a plain file name"
            raise DataError(problem, hint="write the shard set again; do not use one of unknown origin")
    if not manifest.num_samples:
        raise DataError(f"{where} describes a set without a sample", hint="write the shard set again")
    return manifest


def _check_digests(manifest: Manifest) -> None:
    """Raises ValueError for a digest that is not a SHA-256 in hexadecimal: caches name files after it."""
    sources = () if manifest.sources_sha256 is None else (manifest.sources_sha256,)
    for text in (manifest.index_sha256, *sources, *(shard.sha256 for shard in manifest.shards)):
        if len(text) != 64 or set(text) - set("0123456789abcdef"):
            raise ValueError(f"{text!r} is not a SHA-256")
