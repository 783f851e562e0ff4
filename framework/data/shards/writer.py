"""Samples to shards: verified, in parallel, and never looking complete before they are.

The shards are written under temporary names, then the index, and the manifest last: a folder without a manifest is an
unfinished set, which the next run writes from scratch.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from framework.core.errors import ConfigError, DataError
from framework.core.io import PARTIAL, locked_folder, sync_folder
from framework.data.images.complaints import every_warning
from framework.data.images.notes import NoteCounter
from framework.data.images.options import DEFAULT, ReadOptions
from framework.data.shards.finalize import Indexed, finalize_set, map_with_progress, record_of, refuse_skipped
from framework.data.shards.manifest import INDEX, MANIFEST, Kind, Manifest, Skipped
from framework.data.shards.shard import SHARD_NAME, Sample, index_rows, scan_shard, write_shard
from framework.data.shards.validate_sample import UnreadableSample, validate_sample


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A sample that has not been read yet.

    Attributes:
        path: name inside the source, with forward slashes; its suffix is that of the sample's member, if it has one.
        label: class number; None for an episode.
        offset: where the sample begins, for a source that is one file; in bytes.
        size: of the sample there, in bytes.
    """

    path: str
    label: int | None
    offset: int = 0
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The samples of a source.

    Attributes:
        classes: class names.
        files: the samples, in the order in which they are written.
        skipped: parts of the source that are no samples by their name, place or form.
        num_hidden: files that were ignored because a part of their path starts with a dot (or is `__MACOSX`).
    """

    classes: tuple[str, ...]
    files: tuple[SourceFile, ...]
    skipped: tuple[Skipped, ...]
    num_hidden: int = 0


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """How a shard set is written.

    Attributes:
        samples_per_shard: samples in a shard, at most.
        strict: refuse the source when a part of it would be skipped.
        workers: number of threads; 0 means one for each CPU core that this process may use.
        overwrite: replace a finished shard set.
        read: how images are read, and which are refused.

    Raises:
        ConfigError: a number that is out of range.
    """

    samples_per_shard: int = 4096
    strict: bool = False
    workers: int = 0
    overwrite: bool = False
    read: ReadOptions = DEFAULT

    def __post_init__(self) -> None:
        if self.samples_per_shard < 1:
            raise ConfigError(f"samples_per_shard is {self.samples_per_shard}", hint="give at least 1")
        if self.workers < 0:
            raise ConfigError(f"workers is {self.workers}", hint="give at least 1, or 0 for one a CPU core")


def write_listing(
    dest: Path,
    listing: Listing,
    read: Callable[[SourceFile], bytes],
    *,
    kind: Kind,
    options: WriteOptions,
    empty_classes: bool = False,
) -> Manifest:
    """Writes the samples of any source: the core of every converter.

    Args:
        dest: folder of the shard set; made if it is missing.
        listing: the samples, in their order.
        read: gives a sample's bytes; threads share it. Whatever it raises makes the sample a skipped one.
        kind: of the samples.
        options: how.
        empty_classes: a class may be without a readable image.

    Returns:
        What was written. It depends on the listing, the samples' bytes and `options.samples_per_shard` alone.

    Raises:
        DataError: no sample is readable, `dest` holds something else, the disk is full, or (strict) a part of the
            source would be skipped.
    """
    if options.strict:
        refuse_skipped(listing.skipped)
    try:
        dest.mkdir(parents=True, exist_ok=True)
        with locked_folder(dest):
            _clear(dest, overwrite=options.overwrite)
            tasks = _tasks(dest, listing, options.samples_per_shard)
            function = partial(_write_one, read=read, kind=kind, options=options.read)
            with every_warning():
                written = map_with_progress(function, tasks, workers=options.workers)
            skipped = (*listing.skipped, *(skipped for each in written for skipped in each.skipped))
            if options.strict:
                refuse_skipped(skipped)
            return finalize_set(
                dest,
                written,
                classes=listing.classes,
                kind=kind,
                skipped=skipped,
                empty_classes=empty_classes,
                read=options.read,
            )
    except OSError as error:
        problem = f"cannot write {error.filename or dest} ({error.strerror or error})"
        raise DataError(problem, hint="make room or choose another folder, then run it again") from error


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A run of samples that become one shard; `first` is the number of the first in the listing."""

    path: Path
    first: int
    files: tuple[SourceFile, ...]


def _tasks(dest: Path, listing: Listing, samples_per_shard: int) -> list[_Task]:
    return [
        _Task(
            path=dest / f"shard-{first // samples_per_shard:06d}.tar",
            first=first,
            files=listing.files[first : first + samples_per_shard],
        )
        for first in range(0, len(listing.files), samples_per_shard)
    ]


def _write_one(task: _Task, *, read: Callable[[SourceFile], bytes], kind: Kind, options: ReadOptions) -> Indexed:
    """Writes one shard; runs in a thread.

    Args:
        task: which, and of what.
        read: gives a sample's bytes.
        kind: of the samples.
        options: how images are read.

    Raises:
        OSError: the shard cannot be written (a sample that cannot be read is skipped instead).
    """
    sizes: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    skipped: list[Skipped] = []
    notes = NoteCounter()

    def samples() -> Iterator[Sample]:
        for key, file in enumerate(task.files, start=task.first):
            try:
                data = read(file)
            except Exception as error:  # OSError, or what zipfile makes of a damaged or encrypted archive.
                skipped.append(Skipped(source=file.path, reason=f"cannot be read ({error})"))
                continue
            try:
                facts = validate_sample(data, kind=kind, options=options)
            except UnreadableSample as error:
                skipped.append(Skipped(source=file.path, reason=str(error)))
                continue
            if kind == "images":
                sizes[facts.size] += 1
                modes[facts.mode] += 1
                notes.add(facts.notes, source=file.path)
            suffix = PurePosixPath(file.path).suffix.lower().removeprefix(".") if kind == "images" else ""
            # WebDataset's users ask for "jpg".
            suffix = {"jpeg": "jpg", "tif": "tiff"}.get(suffix, suffix) or facts.suffix
            yield Sample(key=key, suffix=suffix, data=data, label=file.label)

    write_shard(task.path, samples())
    rows = index_rows(scan_shard(task.path).samples, {})
    record = None
    if len(rows) == 0:
        task.path.unlink()
    else:
        record = record_of(task.path, num_samples=len(rows))
    return Indexed(record=record, rows=rows, sizes=sizes, modes=modes, skipped=tuple(skipped), notes=notes.notes())


def _clear(dest: Path, *, overwrite: bool) -> None:
    """Empties `dest` of an unfinished or unwanted shard set; the manifest goes first.

    Raises:
        DataError: it holds a finished set that may not be replaced, or anything that is not ours.
    """
    found = sorted(path.name for path in dest.iterdir())
    foreign = [name for name in found if not _is_ours(name)]
    if foreign:
        problem = f"{dest} holds files that are no shards, such as {foreign[0]!r}"
        raise DataError(problem, hint="choose an empty or a new folder")
    if MANIFEST in found:
        if not overwrite:
            raise DataError(f"{dest} already holds a shard set", hint="choose another folder, or use --overwrite")
        (dest / MANIFEST).unlink()
        sync_folder(dest)
        found.remove(MANIFEST)
    for name in found:
        (dest / name).unlink()


def _is_ours(name: str) -> bool:
    name = name.removesuffix(PARTIAL)
    return name in (INDEX, MANIFEST) or SHARD_NAME.fullmatch(name) is not None
