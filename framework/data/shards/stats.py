"""What is in a shard set: the numbers of its manifest and its index, without reading a shard."""

from dataclasses import dataclass

import numpy as np

from framework.data.images.notes import ImageNote
from framework.data.shards.manifest import Kind
from framework.data.shards.reader import ShardSet


@dataclass(frozen=True, kw_only=True)
class ShardStats:
    """One shard.

    Attributes:
        name: of its file.
        num_samples: in it.
        num_bytes: of its file.
        num_classes: classes that have a sample in it; 0 for episodes.
    """

    name: str
    num_samples: int
    num_bytes: int
    num_classes: int


@dataclass(frozen=True, kw_only=True)
class SetStats:
    """A shard set.

    Attributes:
        kind: of its samples.
        num_samples: in it.
        num_bytes: of its shards, tar headers and labels with them.
        sample_bytes: smallest, median, mean and largest size of a sample.
        num_skipped: parts of the source that are no samples.
        classes: samples of each class, by name.
        image_sizes: images of each size, the commonest first.
        image_modes: images of each Pillow mode, the commonest first.
        notes: what was noticed about the images.
        shards: one for each.
    """

    kind: Kind
    num_samples: int
    num_bytes: int
    sample_bytes: tuple[int, int, int, int]
    num_skipped: int
    classes: dict[str, int]
    image_sizes: dict[str, int]
    image_modes: dict[str, int]
    notes: tuple[ImageNote, ...]
    shards: tuple[ShardStats, ...]


def measure(shards: ShardSet) -> SetStats:
    """Counts what the manifest and the index of a set say."""
    manifest, index = shards.manifest, shards.index
    sizes = index[:, 2]
    ends = np.cumsum([record.num_samples for record in manifest.shards])
    records = [
        ShardStats(
            name=record.name,
            num_samples=record.num_samples,
            num_bytes=record.num_bytes,
            num_classes=len(np.unique(index[end - record.num_samples : end, 3])) if manifest.classes else 0,
        )
        for record, end in zip(manifest.shards, ends.tolist(), strict=True)
    ]
    return SetStats(
        kind=manifest.kind,
        num_samples=len(index),
        num_bytes=manifest.num_bytes,
        sample_bytes=(int(sizes.min()), int(np.median(sizes)), int(sizes.mean()), int(sizes.max())),
        num_skipped=len(manifest.skipped),
        classes=dict(zip(manifest.classes, manifest.class_counts, strict=True)),
        image_sizes=manifest.image_sizes,
        image_modes=manifest.image_modes,
        notes=manifest.notes,
        shards=tuple(records),
    )
