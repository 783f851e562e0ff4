"""Images to shards: verified, in parallel, and never looking complete before they are.

The shards are written under temporary names, then the index, and the manifest last: a folder without a manifest is an
unfinished set, which the next run writes from scratch.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from framework.data.images import UnreadableImage, decode_image
from framework.data.manifest import INDEX, MANIFEST, Manifest, ShardRecord, Skipped
from framework.data.parallel import map_in_threads
from framework.data.shard import SHARD_NAME, Sample, index_shard, write_shard
from framework.data.sources import ImageFile, ImageListing, list_images, open_source
from framework.errors import ConfigError, DataError
from framework.files import PARTIAL, locked_folder, sha256_of, sync_folder, written_whole

_NUM_NAMED = 5


def write_image_shards(
    source: str | Path,
    dest: str | Path,
    *,
    folder: str = "",
    samples_per_shard: int = 4096,
    strict: bool = False,
    workers: int = 0,
    overwrite: bool = False,
) -> Manifest:
    """Writes the images of class folders as WebDataset shards, an index and a manifest.

    Every image is decoded once to see that it can be, and stored as the bytes that it was. The bytes written depend
    on the images, `folder` and `samples_per_shard` alone.

    Args:
        source: a directory, or a zip archive of one.
        dest: folder of the shard set; made if it is missing.
        folder: folder inside `source` that holds the class folders, such as `train`.
        samples_per_shard: images in a shard, at most.
        strict: refuse the source when a file in it would be skipped.
        workers: number of threads; 0 means one for each CPU core that this process may use.
        overwrite: replace a finished shard set at `dest`.

    Returns:
        What was written, with the files that were skipped and why.

    Raises:
        DataError: nothing to read, `dest` holds something else, the disk is full, or (strict) files would be skipped.
        ConfigError: a number that is out of range.
    """
    source, dest = Path(source), Path(dest)
    if samples_per_shard < 1:
        raise ConfigError(f"samples_per_shard is {samples_per_shard}", mend="give at least 1")
    if workers < 0:
        raise ConfigError(f"workers is {workers}", mend="give at least 1, or 0 for one a CPU core")
    listing = list_images(source, folder=folder)
    if strict:
        _refuse(listing.skipped)
    if source.is_dir() and dest.resolve().is_relative_to((source / folder.strip("/")).resolve()):
        raise DataError(f"{dest} lies inside the images at {source}", mend="choose a folder outside of them")
    try:
        dest.mkdir(parents=True, exist_ok=True)
        with locked_folder(dest):
            _clear(dest, overwrite=overwrite)
            tasks = _tasks(dest, listing, samples_per_shard)
            with open_source(source) as read:
                written = _write_all(tasks, read, workers=workers)
            if strict:
                _refuse(tuple(skipped for each in written for skipped in each.skipped))
            return _finish(dest, listing, written)
    except OSError as error:
        problem = f"cannot write {error.filename or dest} ({error.strerror or error})"
        raise DataError(problem, mend="make room or choose another folder, then run it again") from error


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A run of files that become one shard; `first` is the number of the first in the listing."""

    path: Path
    first: int
    files: tuple[ImageFile, ...]


@dataclass(frozen=True, kw_only=True)
class _Written:
    """What became of a task; `rows` as `index_shard` gives them, `record` is None when no image was readable."""

    record: ShardRecord | None
    rows: np.ndarray
    sizes: Counter[str]
    modes: Counter[str]
    skipped: tuple[Skipped, ...]


def _tasks(dest: Path, listing: ImageListing, samples_per_shard: int) -> list[_Task]:
    return [
        _Task(
            path=dest / f"shard-{first // samples_per_shard:06d}.tar",
            first=first,
            files=listing.files[first : first + samples_per_shard],
        )
        for first in range(0, len(listing.files), samples_per_shard)
    ]


def _write_all(tasks: list[_Task], read: Callable[[str], bytes], *, workers: int) -> list[_Written]:
    """Writes every shard, with a progress bar where someone can see it."""
    with closing(map_in_threads(partial(_write_one, read=read), tasks, workers=workers)) as results:
        return list(
            track(
                results,
                description="shards",
                total=len(tasks),
                console=Console(stderr=True),
                transient=True,
                disable=not sys.stderr.isatty(),
            )
        )


def _write_one(task: _Task, *, read: Callable[[str], bytes]) -> _Written:
    """Writes one shard; runs in a thread.

    Raises:
        OSError: the shard cannot be written (an image that cannot be read is skipped instead).
    """
    sizes: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    skipped: list[Skipped] = []

    def samples() -> Iterator[Sample]:
        for key, file in enumerate(task.files, start=task.first):
            try:
                data = read(file.path)
            except Exception as error:  # OSError, or what zipfile makes of a damaged or encrypted archive.
                skipped.append(Skipped(source=file.path, reason=f"cannot be read ({error})"))
                continue
            try:
                image = decode_image(data)
            except UnreadableImage as error:
                skipped.append(Skipped(source=file.path, reason=str(error)))
                continue
            sizes[f"{image.width}x{image.height}"] += 1
            modes[image.mode] += 1
            yield Sample(key=key, path=file.path, data=data, label=file.label)

    write_shard(task.path, samples())
    rows = index_shard(task.path)
    record = None
    if len(rows) == 0:
        task.path.unlink()
    else:
        record = ShardRecord(
            name=task.path.name,
            num_samples=len(rows),
            num_bytes=task.path.stat().st_size,
            sha256=sha256_of(task.path),
        )
    return _Written(record=record, rows=rows, sizes=sizes, modes=modes, skipped=tuple(skipped))


def _finish(dest: Path, listing: ImageListing, written: list[_Written]) -> Manifest:
    """Writes the index, then the manifest.

    Raises:
        DataError: no image of a class was readable.
    """
    kept = [each for each in written if each.record is not None]
    rows = [
        np.insert(each.rows, 0, shard, axis=1)  # (offset, size, label) -> (shard, offset, size, label)
        for shard, each in enumerate(kept)
    ]
    index = np.concatenate(rows) if rows else np.zeros((0, 4), dtype=np.int64)
    counts = np.bincount(index[:, 3], minlength=len(listing.classes))
    skipped = (*listing.skipped, *(skipped for each in written for skipped in each.skipped))
    for name, count in zip(listing.classes, counts, strict=True):
        if count == 0:
            raise DataError(f"class {name!r} holds no readable image: {_name_some(skipped)}", mend="repair its images")
    with written_whole(dest / INDEX) as stream:
        np.save(stream, index, allow_pickle=False)
    records = tuple(each.record for each in kept if each.record is not None)
    manifest = Manifest(
        classes=listing.classes,
        class_counts=tuple(counts.tolist()),
        num_samples=len(index),
        num_bytes=sum(record.num_bytes for record in records),
        image_sizes=_sorted(sum((each.sizes for each in kept), Counter())),
        image_modes=_sorted(sum((each.modes for each in kept), Counter())),
        shards=records,
        index_sha256=sha256_of(dest / INDEX),
        skipped=skipped,
    )
    manifest.write(dest)
    return manifest


def _clear(dest: Path, *, overwrite: bool) -> None:
    """Empties `dest` of an unfinished or unwanted shard set; the manifest goes first.

    Raises:
        DataError: it holds a finished set that may not be replaced, or anything that is not ours.
    """
    found = sorted(path.name for path in dest.iterdir())
    foreign = [name for name in found if not _is_ours(name)]
    if foreign:
        problem = f"{dest} holds files that are no shards, such as {foreign[0]!r}"
        raise DataError(problem, mend="choose an empty or a new folder")
    if MANIFEST in found:
        if not overwrite:
            raise DataError(f"{dest} already holds a shard set", mend="choose another folder, or use --overwrite")
        (dest / MANIFEST).unlink()
        sync_folder(dest)
        found.remove(MANIFEST)
    for name in found:
        (dest / name).unlink()


def _is_ours(name: str) -> bool:
    name = name.removesuffix(PARTIAL)
    return name in (INDEX, MANIFEST) or SHARD_NAME.fullmatch(name) is not None


def _refuse(skipped: tuple[Skipped, ...]) -> None:
    """Raises DataError if files were skipped."""
    if skipped:
        raise DataError(f"strict: {_name_some(skipped)}", mend="repair or remove them, or go on without --strict")


def _name_some(skipped: tuple[Skipped, ...]) -> str:
    """The number of skipped files, the first few by name."""
    named = "; ".join(f"{each.source} ({each.reason})" for each in skipped[:_NUM_NAMED])
    more = "" if len(skipped) <= _NUM_NAMED else f" and {len(skipped) - _NUM_NAMED} more"
    return f"{len(skipped)} files cannot be used: {named}{more}"


def _sorted(counts: Counter[str]) -> dict[str, int]:
    """The counts, the largest first, equal ones by name: the same whatever the number of workers."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
