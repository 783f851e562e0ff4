"""The manifest: what a shard set holds, written last, so that a set without one is known to be unfinished."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from framework.errors import DataError
from framework.files import written_whole

MANIFEST = "manifest.json"
INDEX = "index.npy"
FORMAT_VERSION = 1
KIND = "images"


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A file of the source that is in no shard.

    Attributes:
        source: its path inside the source.
        reason: why it was left out.
    """

    source: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """One shard.

    Attributes:
        name: file name inside the set's folder.
        num_samples: images in it.
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
        classes: class names; a label is a position in it.
        class_counts: images of each class, in the same order.
        num_samples: images in all.
        num_bytes: size of all shards.
        image_sizes: number of images of each size, as {"32x32": 50000}, width first.
        image_modes: number of images of each Pillow mode, as {"RGB": 50000}.
        shards: the shards, in the order of their samples.
        index_sha256: of the index file.
        skipped: files of the source that are in no shard, and why.
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

    def write(self, folder: Path) -> None:
        """Writes the manifest into `folder`, whole or not at all."""
        record = {"format_version": FORMAT_VERSION, "kind": KIND, **asdict(self)}
        with written_whole(folder / MANIFEST) as stream:
            stream.write((json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())


def read_manifest(folder: Path) -> Manifest:
    """Reads the manifest of the shard set in `folder`.

    Raises:
        DataError: no shard set there, an unfinished one, or a manifest that cannot be understood.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise DataError(f"no shard set at {folder}", mend="write one with: framework shards images SOURCE DEST")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        mend = "write it again with: framework shards images SOURCE DEST"
        raise DataError(f"{folder} has no {MANIFEST}, so it is no shard set or an unfinished one", mend=mend) from None
    except (ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read ({error})", mend="write the shard set again") from None
    return _from_record(record, path)


def _from_record(record: Any, path: Path) -> Manifest:
    """The manifest in a JSON value that may be anything.

    Raises:
        DataError: another version or kind, a key that is missing or of a wrong type.
    """
    found = (record.get("format_version"), record.get("kind")) if isinstance(record, dict) else (None, None)
    if found != (FORMAT_VERSION, KIND):
        problem = f"{path} has format version {found[0]!r} and kind {found[1]!r}, not {FORMAT_VERSION} and {KIND!r}"
        raise DataError(problem, mend="write the shard set again with this version")
    try:
        return Manifest(
            classes=tuple(str(name) for name in record["classes"]),
            class_counts=tuple(int(count) for count in record["class_counts"]),
            num_samples=int(record["num_samples"]),
            num_bytes=int(record["num_bytes"]),
            image_sizes={str(size): int(count) for size, count in record["image_sizes"].items()},
            image_modes={str(mode): int(count) for mode, count in record["image_modes"].items()},
            shards=tuple(ShardRecord(**shard) for shard in record["shards"]),
            index_sha256=str(record["index_sha256"]),
            skipped=tuple(Skipped(**skipped) for skipped in record["skipped"]),
        )
    except KeyError as error:
        raise DataError(f"{path} has no key {error}", mend="write the shard set again") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error})", mend="write the shard set again") from None
