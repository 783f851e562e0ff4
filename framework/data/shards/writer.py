"""Samples to shards: verified, in parallel, and never looking complete before they are.

The shards are written under temporary names, then the index, and the manifest last: a folder without a manifest is an
unfinished set. The next run of the same conversion goes on with it; any other writes it from scratch.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from framework.core.console import console
from framework.core.errors import ConfigError, DataError
from framework.core.io import PARTIAL, locked_folder, sync_folder
from framework.data.archives.names import printable
from framework.data.images.formats import image_suffixes, member_suffix
from framework.data.images.notes import NoteCounter
from framework.data.images.options import DEFAULT, ReadOptions
from framework.data.shards.finalize import (
    Indexed,
    SampleProgress,
    SetFacts,
    ShardFacts,
    finalize_set,
    map_with_progress,
    record_of,
    refuse_skipped,
)
from framework.data.shards.journal import JOURNAL, Journal, digest_of, is_as_noted
from framework.data.shards.manifest import INDEX, MANIFEST, SOURCES, Kind, Manifest, Skipped
from framework.data.shards.shard import SHARD_NAME, Sample, index_rows, scan_shard, write_shard
from framework.data.shards.source_paths import SourcePath
from framework.data.shards.validate_sample import Facts, UnreadableSample, validate_sample

_NOT_READ = "cannot be read"
_NOT_OF_THE_BYTES = ("strict", "workers", "overwrite")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A sample that has not been read yet.

    Attributes:
        path: name inside the source, with forward slashes; its suffix is that of the sample's member, if it has one.
            Bytes that are not UTF-8 stand in it as surrogates.
        label: class number; None for an episode.
        offset: where the sample begins, for a source that is one file; in bytes.
        size: of the sample there, in bytes; 0 where it is not known before it is read.
        stamp: changes when the file does: the time of its last change, or a checksum.
    """

    path: str
    label: int | None
    offset: int = 0
    size: int = 0
    stamp: int = 0


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The samples of a source.

    Attributes:
        classes: class names.
        files: the samples, in the order in which they are written.
        skipped: parts of the source that are no samples by their name, place or form.
        hidden: files that are ignored because a part of their path starts with a dot (or is `__MACOSX`).
        identity: with the files' own stamps, of the source as it is now, for going on after an interruption; None for
            a source that is not known again.
        empty_classes: a class may be without a readable image.
        unconditional: all images are of the one class.
    """

    classes: tuple[str, ...]
    files: tuple[SourceFile, ...]
    skipped: tuple[Skipped, ...]
    hidden: tuple[Skipped, ...] = ()
    identity: str | None = None
    empty_classes: bool = False
    unconditional: bool = False


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
) -> Manifest:
    """Writes the samples of any source: the core of every converter.

    Shards of the same conversion that was interrupted are kept: the result has the same bytes as without interruption.

    Args:
        dest: folder of the shard set; made if it is missing.
        listing: the samples, in their order.
        read: gives a sample's bytes; threads share it. Whatever it raises makes the sample a skipped one.
        kind: of the samples.
        options: how.

    Returns:
        What was written. It depends on the listing, the samples' bytes and `options.samples_per_shard` alone.

    Raises:
        DataError: no sample is readable, `dest` holds something else, the disk is full, a class name that is not
            UTF-8, or (strict) a part of the source would be skipped.
    """
    _refuse_names(listing.classes)
    if options.strict:
        refuse_skipped(listing.skipped)
    try:
        dest.mkdir(parents=True, exist_ok=True)
        with locked_folder(dest):
            written = _write_shards(dest, listing, read, kind=kind, options=options)
            skipped = (*listing.skipped, *(skipped for each in written for skipped in each.facts.skipped))
            if options.strict:
                refuse_skipped(skipped)
            known = SetFacts(
                classes=listing.classes,
                kind=kind,
                skipped=skipped,
                hidden=listing.hidden,
                empty_classes=listing.empty_classes,
                unconditional=listing.unconditional,
                read=options.read,
            )
            return finalize_set(dest, written, known, journal=dest / JOURNAL)
    except OSError as error:
        problem = f"cannot write {error.filename or dest} ({error.strerror or error})"
        raise DataError(problem, hint="make room or choose another folder, then run it again") from error


def _write_shards(
    dest: Path, listing: Listing, read: Callable[[SourceFile], bytes], *, kind: Kind, options: WriteOptions
) -> list[Indexed]:
    """Writes the shards that are not there yet; arguments and errors as of `write_listing`."""
    tasks = _tasks(dest, listing, options.samples_per_shard)
    journal = Journal(dest, _digest(listing, kind, options), _made_of(tasks), ShardFacts)
    kept = {JOURNAL, *({task.path.name for task in tasks} & journal.parts.keys())} if journal.parts else set[str]()
    _clear(dest, overwrite=options.overwrite, keep=kept)
    journal.begin()
    if journal.parts:
        console.print(f"going on with {dest}, which holds {len(journal.parts)} of {len(tasks)} shards")
    return map_with_progress(
        partial(_write_one, read=read, kind=kind, options=options.read, journal=journal),
        tasks,
        workers=options.workers,
        total=len(listing.files),
        noun=kind,
    )


def _refuse_names(classes: tuple[str, ...]) -> None:
    """Raises DataError for a class name that no text can hold, before anything is written."""
    for name in classes:
        if printable(name) != name:
            problem = f"the class '{printable(name)}' has a name that is not UTF-8"
            raise DataError(problem, hint="rename its folder, or save its label as UTF-8")


def _digest(listing: Listing, kind: Kind, options: WriteOptions) -> str | None:
    """Of what the bytes of all shards depend on; None where the source is not known again."""
    if listing.identity is None:
        return None
    how = [(each.name, getattr(options, each.name)) for each in fields(options) if each.name not in _NOT_OF_THE_BYTES]
    return digest_of([kind, how, listing.identity])


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


def _made_of(tasks: list[_Task]) -> dict[str, str]:
    """Digests of what the bytes of each shard depend on, by its name."""
    return {
        task.path.name: digest_of((each.path, each.label, each.offset, each.size, each.stamp) for each in task.files)
        for task in tasks
    }


def _write_one(
    task: _Task,
    progress: SampleProgress,
    *,
    read: Callable[[SourceFile], bytes],
    kind: Kind,
    options: ReadOptions,
    journal: Journal[ShardFacts],
) -> Indexed:
    """Writes one shard, or finds that it has been written; runs in a thread.

    Args:
        task: which, and of what.
        progress: counts the samples.
        read: gives a sample's bytes.
        kind: of the samples.
        options: how images are read.
        journal: of the shards that are there.

    Raises:
        OSError: the shard cannot be written (a sample that cannot be read is skipped instead).
    """
    facts = journal.parts.get(task.path.name)
    if facts is not None and _is_final(facts) and is_as_noted(task.path, facts.record):
        progress.advance(len(task.files))
    else:
        facts = _write_samples(task, progress, read=read, kind=kind, options=options)
        journal.note(task.path.name, facts)
    if facts.record is None:
        return Indexed(facts=facts, rows=index_rows([], {}))
    found = scan_shard(task.path).samples
    names = [each.member.name for each in found]
    sources = tuple(SourcePath(member=name, path=task.files[_key_of(name) - task.first].path) for name in names)
    return Indexed(facts=facts, rows=index_rows(found, {}), sources=sources)


def _write_samples(
    task: _Task, progress: SampleProgress, *, read: Callable[[SourceFile], bytes], kind: Kind, options: ReadOptions
) -> ShardFacts:
    sizes: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    skipped: list[Skipped] = []
    notes = NoteCounter()
    num_samples = 0

    def samples() -> Iterator[Sample]:
        nonlocal num_samples
        for key, file in enumerate(task.files, start=task.first):
            progress.advance()
            try:
                data = read(file)
                facts = validate_sample(data, kind=kind, options=options)
                sample = Sample(key=key, suffix=_suffix(file, facts, kind), data=data, label=file.label)
            except UnreadableSample as error:
                skipped.append(Skipped(source=file.path, reason=str(error)))
                continue
            except Exception as error:  # OSError, or what zipfile makes of a damaged archive.
                skipped.append(Skipped(source=file.path, reason=f"{_NOT_READ} ({error})"))
                continue
            if kind == "images":
                sizes[facts.size] += 1
                modes[facts.mode] += 1
                notes.add(facts.notes, source=printable(file.path))
            num_samples += 1
            yield sample

    write_shard(task.path, samples())
    record = None
    if num_samples == 0:
        task.path.unlink()
    else:
        record = record_of(task.path, num_samples=num_samples)
    return ShardFacts(record=record, sizes=dict(sizes), modes=dict(modes), skipped=tuple(skipped), notes=notes.notes())


def _is_final(facts: ShardFacts) -> bool:
    """Whether a shard would be the same again: what could not be read for its permissions or its disk now may be."""
    return not any(each.reason.startswith(_NOT_READ) for each in facts.skipped)


def _suffix(file: SourceFile, facts: Facts, kind: Kind) -> str:
    """The suffix of a sample's member. Raises UnreadableSample for a format that has none."""
    if kind == "episodes":
        return facts.suffix
    suffix = member_suffix(file.path, actual=facts.suffix)
    if suffix not in image_suffixes():
        raise UnreadableSample(f"of a format without a usual suffix ({suffix})")
    return suffix


def _key_of(member: str) -> int:
    """The number of a sample's file in the listing."""
    return int(member.partition(".")[0])


def _clear(dest: Path, *, overwrite: bool, keep: Collection[str]) -> None:
    """Empties `dest` of an unfinished or unwanted shard set; the manifest goes first.

    Args:
        dest: folder of the set.
        overwrite: remove a finished set.
        keep: files of an unfinished set that stay.

    Raises:
        DataError: it holds a finished set that may not be replaced, or anything that is not ours.
    """
    found = sorted(path.name for path in dest.iterdir())
    foreign = [printable(name) for name in found if not _is_ours(name)]
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
        if name not in keep:
            (dest / name).unlink()


def _is_ours(name: str) -> bool:
    name = name.removesuffix(PARTIAL)
    return name in (INDEX, MANIFEST, SOURCES, JOURNAL) or SHARD_NAME.fullmatch(name) is not None
