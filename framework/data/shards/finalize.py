"""The end of every way to make a shard set: what is known about each shard becomes the index, then the manifest."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Int64
from rich.progress import track

from framework.core.console import console
from framework.core.errors import DataError
from framework.core.io import atomic_write, sha256_of
from framework.data.images.notes import ImageNote, NoteCounter
from framework.data.images.options import DEFAULT, ReadOptions
from framework.data.shards.manifest import INDEX, Kind, Manifest, ShardRecord, Skipped
from framework.data.shards.parallel import map_in_threads

_NUM_NAMED = 5
Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Indexed:
    """A shard that is there.

    Attributes:
        record: None when no sample in it was readable, and it is not there after all.
        rows: as `index_rows` gives them.
        sizes: number of images of each size.
        modes: number of images of each Pillow mode.
        skipped: what is not a sample.
        notes: what is worth telling about images.
    """

    record: ShardRecord | None
    rows: Int64[np.ndarray, "sample column"]
    sizes: Counter[str]
    modes: Counter[str]
    skipped: tuple[Skipped, ...]
    notes: tuple[ImageNote, ...] = ()


def map_with_progress(function: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int) -> list[Result]:
    """Does something with every shard in threads, with a progress bar where someone can see it.

    Args:
        function: what to do.
        tasks: what to do it with.
        workers: number of threads; 0 means one for each CPU core that this process may use.
    """
    with closing(map_in_threads(function, tasks, workers=workers)) as results:
        return list(
            track(
                results,
                description="shards",
                total=len(tasks),
                console=console,
                transient=True,
                disable=not sys.stderr.isatty(),
            )
        )


def record_of(path: Path, *, num_samples: int) -> ShardRecord:
    """The record of a shard that is there; reads all of it."""
    return ShardRecord(name=path.name, num_samples=num_samples, num_bytes=path.stat().st_size, sha256=sha256_of(path))


def finalize_set(
    dest: Path,
    shards: Sequence[Indexed],
    *,
    classes: tuple[str, ...],
    kind: Kind,
    skipped: tuple[Skipped, ...],
    empty_classes: bool,
    label_key: str | None = None,
    read: ReadOptions = DEFAULT,
) -> Manifest:
    """Writes the index, then the manifest.

    Args:
        dest: folder of the set.
        shards: in the order of their samples; those without a record are left out.
        classes: class names; none for episodes.
        kind: of the samples.
        skipped: what is not a sample, and why.
        empty_classes: a class may be without a readable image.
        label_key: of the labels in the images' JSON members, for shards that others wrote.
        read: how the images are read.

    Raises:
        DataError: no sample was readable, or none of a class that may not be empty.
        OSError: one of them cannot be written.
    """
    kept = [each for each in shards if each.record is not None]
    rows = [
        np.insert(each.rows, 0, shard, axis=1)  # (offset, size, label) -> (shard, offset, size, label)
        for shard, each in enumerate(kept)
    ]
    index = np.concatenate(rows) if rows else np.zeros((0, 4), dtype=np.int64)
    counts = np.bincount(index[index[:, 3] >= 0, 3], minlength=len(classes))
    for name, count in zip(classes, counts, strict=True):
        if count == 0 and not empty_classes:
            raise DataError(f"class {name!r} holds no readable image: {_name_some(skipped)}", hint="repair its images")
    if len(index) == 0:
        raise DataError(f"no sample is readable: {_name_some(skipped)}", hint="give a source with some, or repair it")
    with atomic_write(dest / INDEX) as stream:
        np.save(stream, index, allow_pickle=False)
    records = tuple(each.record for each in kept if each.record is not None)
    manifest = Manifest(
        classes=classes,
        class_counts=tuple(counts.tolist()),
        num_samples=len(index),
        num_bytes=sum(record.num_bytes for record in records),
        image_sizes=_sorted(each.sizes for each in kept),
        image_modes=_sorted(each.modes for each in kept),
        shards=records,
        index_sha256=sha256_of(dest / INDEX),
        skipped=skipped,
        kind=kind,
        label_key=label_key,
        read=read,
        notes=_all_notes(each.notes for each in kept),
    )
    manifest.write(dest)
    return manifest


def refuse_skipped(skipped: tuple[Skipped, ...]) -> None:
    """Raises DataError if anything was skipped."""
    if skipped:
        raise DataError(f"strict: {_name_some(skipped)}", hint="repair or remove them, or go on without --strict")


def _name_some(skipped: tuple[Skipped, ...]) -> str:
    """The number of skipped files, the first few by name."""
    named = "; ".join(f"{each.source} ({each.reason})" for each in skipped[:_NUM_NAMED])
    more = "" if len(skipped) <= _NUM_NAMED else f" and {len(skipped) - _NUM_NAMED} more"
    return f"{len(skipped)} files cannot be used: {named}{more}"


def _all_notes(of_shards: Iterable[tuple[ImageNote, ...]]) -> tuple[ImageNote, ...]:
    counter = NoteCounter()
    for notes in of_shards:
        counter.merge(notes)
    return counter.notes()


def _sorted(counts: Iterable[Counter[str]]) -> dict[str, int]:
    """The sum of the counts, the largest first, equal ones by name: the same whatever the number of workers."""
    total = sum(counts, Counter())
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))
