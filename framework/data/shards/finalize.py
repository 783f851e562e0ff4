"""The end of every way to make a shard set: what is known about each shard becomes the index, then the manifest."""

import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Int64
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from framework.core.console import console
from framework.core.errors import DataError
from framework.core.io import atomic_write, sha256_of
from framework.data.images.complaints import every_warning
from framework.data.images.notes import ImageNote, NoteCounter
from framework.data.images.options import DEFAULT, ReadOptions
from framework.data.shards.manifest import INDEX, Kind, Manifest, ShardRecord, Skipped
from framework.data.shards.parallel import map_in_threads
from framework.data.shards.source_paths import SourcePath, write_source_paths

_NUM_NAMED = 3
_LINE_EVERY_S = 30.0
Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class ShardFacts:
    """What is known of a shard, but for its rows of the index: what a journal keeps of it.

    Attributes:
        record: None when no sample in it was readable, and it is not there after all.
        sizes: number of images of each size.
        modes: number of images of each Pillow mode.
        skipped: what is not a sample.
        notes: what is worth telling about images.
    """

    record: ShardRecord | None
    sizes: dict[str, int]
    modes: dict[str, int]
    skipped: tuple[Skipped, ...]
    notes: tuple[ImageNote, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Indexed:
    """A shard that is there.

    Attributes:
        facts: what is known of it.
        rows: as `index_rows` gives them.
        sources: where its samples come from; none for shards that others wrote.
    """

    facts: ShardFacts
    rows: Int64[np.ndarray, "sample column"]
    sources: tuple[SourcePath, ...] = ()


class Cancelled(Exception):
    """The others of a task's kind have been given up, by an error in one of them or by Ctrl-C."""


class SampleProgress:
    """Counts samples, in a bar or, where nobody watches, in a line now and then; threads share it.

    Attributes:
        cause: the error for which the tasks were given up, if it was one of theirs.
    """

    def __init__(self, total: int, noun: str) -> None:
        self._total, self._noun = total, noun
        self._lock = threading.Lock()
        self._done, self._cancelled = 0, False
        self.cause: BaseException | None = None
        self._began = self._told = time.monotonic()
        self._is_watched = console.is_interactive
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(min(40, console.width // 3)),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not self._is_watched,
        )
        self._task = self._bar.add_task(noun, total=total)

    def __enter__(self) -> "SampleProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def cancel(self, cause: BaseException | None = None) -> None:
        """Makes every task stop at its next sample; `cause` is the error that led to it."""
        with self._lock:
            if not self._cancelled:
                self.cause = cause
            self._cancelled = True

    def advance(self, count: int = 1) -> None:
        """So many more are done. Raises Cancelled when it is of no use to go on."""
        if self._cancelled:
            raise Cancelled
        with self._lock:
            self._done += count
            now = time.monotonic()
            tell = not self._is_watched and now - self._told >= _LINE_EVERY_S
            if tell:
                self._told = now
        if self._is_watched:
            self._bar.advance(self._task, count)
        if tell:
            rate = self._done / (now - self._began)
            console.print(f"{self._done:,} of {self._total:,} {self._noun} ({rate:,.0f}/s)")


def map_with_progress(
    function: Callable[[Task, SampleProgress], Result], tasks: Sequence[Task], *, workers: int, total: int, noun: str
) -> list[Result]:
    """Does something with every shard in threads, with progress where someone can see it.

    Args:
        function: what to do; tells the progress what it has done.
        tasks: what to do it with.
        workers: number of threads; 0 means one for each CPU core that this process may use.
        total: what the progress comes to.
        noun: what it counts.
    """
    with every_warning(), SampleProgress(total, noun) as progress:

        def run(task: Task) -> Result:
            try:
                return function(task, progress)
            except BaseException as error:
                # At once, not when this task's result is asked for.
                progress.cancel(error)
                raise

        with closing(map_in_threads(run, tasks, workers=workers, give_up=progress.cancel)) as results:
            try:
                return list(results)
            except Cancelled:
                # An earlier task, which stopped because of a later one's error.
                assert progress.cause is not None
                raise progress.cause from None


def record_of(path: Path, *, num_samples: int) -> ShardRecord:
    """The record of a shard that is there; reads all of it."""
    return ShardRecord(name=path.name, num_samples=num_samples, num_bytes=path.stat().st_size, sha256=sha256_of(path))


@dataclass(frozen=True, kw_only=True)
class SetFacts:
    """What is known of a set beside its shards.

    Attributes:
        classes: class names; none for episodes.
        kind: of the samples.
        skipped: what is not a sample, and why.
        hidden: files that are ignored for their names.
        empty_classes: a class may be without a readable image.
        label_key: of the labels in the images' JSON members, for shards that others wrote.
        unconditional: all images are of the one class.
        read: how images are read.
    """

    classes: tuple[str, ...]
    kind: Kind
    skipped: tuple[Skipped, ...]
    hidden: tuple[Skipped, ...] = ()
    empty_classes: bool = False
    label_key: str | None = None
    unconditional: bool = False
    read: ReadOptions = DEFAULT


def finalize_set(dest: Path, shards: Sequence[Indexed], known: SetFacts, *, journal: Path | None = None) -> Manifest:
    """Writes the index and the sources, then the manifest.

    Args:
        dest: folder of the set.
        shards: in the order of their samples; those without a record are left out.
        known: the rest of what the manifest says.
        journal: of the writing; removed before the manifest appears.

    Raises:
        DataError: no sample was readable, or none of a class that may not be empty.
        OSError: one of them cannot be written.
    """
    kept = [(each, each.facts.record) for each in shards if each.facts.record is not None]
    rows = [
        np.insert(each.rows, 0, shard, axis=1)  # (offset, size, label) -> (shard, offset, size, label)
        for shard, (each, _) in enumerate(kept)
    ]
    index = np.concatenate(rows) if rows else np.zeros((0, 4), dtype=np.int64)
    counts = np.bincount(index[index[:, 3] >= 0, 3], minlength=len(known.classes))
    _refuse_empty(known, counts.tolist(), len(index))
    with atomic_write(dest / INDEX) as stream:
        np.save(stream, index, allow_pickle=False)
    has_sources = any(each.sources for each, _ in kept)
    sources = (source for each, _ in kept for source in each.sources)
    records = tuple(record for _, record in kept)
    manifest = Manifest(
        classes=known.classes,
        class_counts=tuple(counts.tolist()),
        num_samples=len(index),
        num_bytes=sum(record.num_bytes for record in records),
        image_sizes=_sorted(each.facts.sizes for each, _ in kept),
        image_modes=_sorted(each.facts.modes for each, _ in kept),
        shards=records,
        index_sha256=sha256_of(dest / INDEX),
        skipped=known.skipped,
        kind=known.kind,
        label_key=known.label_key,
        unconditional=known.unconditional,
        left_out=count_reasons((*known.skipped, *known.hidden)),
        sources_sha256=write_source_paths(dest, sources) if has_sources else None,
        read=known.read,
        notes=_all_notes(each.facts.notes for each, _ in kept),
    )
    if journal is not None:
        journal.unlink(missing_ok=True)
    manifest.write(dest)
    return manifest


def _refuse_empty(known: SetFacts, counts: list[int], num_samples: int) -> None:
    """Raises DataError where there is no sample, or none of a class that needs one."""
    for name, count in zip(known.classes, counts, strict=True):
        if count == 0 and not known.empty_classes:
            ours = [each for each in (*known.skipped, *known.hidden) if each.source.startswith(f"{name}/")]
            problem = f"class {name!r} holds no readable image: {name_some(ours or known.skipped)}"
            raise DataError(problem, hint="repair its images")
    if num_samples == 0:
        raise DataError(
            f"no sample is readable: {name_some(known.skipped)}", hint="give a source with some, or repair it"
        )


def refuse_skipped(skipped: Sequence[Skipped]) -> None:
    """Raises DataError if anything was skipped."""
    if skipped:
        raise DataError(f"strict: {name_some(skipped)}", hint="repair or remove them, or go on without --strict")


def count_reasons(skipped: Iterable[Skipped]) -> dict[str, int]:
    """How much was left out for each reason, the commonest first; numbers in the reasons become N."""
    return _sorted([Counter(_kind_of(each.reason) for each in skipped)])


def name_some(skipped: Sequence[Skipped]) -> str:
    """How much was left out, for each reason the number and the first few by name."""
    by_reason: defaultdict[str, list[Skipped]] = defaultdict(list)
    for each in skipped:
        by_reason[_kind_of(each.reason)].append(each)
    parts: list[str] = []
    for reason, some in sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0])):
        names = ", ".join(sorted(each.source for each in some)[:_NUM_NAMED]) + (
            ", ..." if len(some) > _NUM_NAMED else ""
        )
        parts.append(f"{len(some)} {some[0].reason if len(some) == 1 else reason} ({names})")
    return f"{len(skipped)} files cannot be used: {'; '.join(parts)}".removesuffix(": ")


def _kind_of(reason: str) -> str:
    return re.sub(r"\d(?:[\d,]*\d)?", "N", reason)


def _all_notes(of_shards: Iterable[tuple[ImageNote, ...]]) -> tuple[ImageNote, ...]:
    counter = NoteCounter()
    for notes in of_shards:
        counter.merge(notes)
    return counter.notes()


def _sorted(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of the counts, the largest first, equal ones by name: the same whatever the number of workers."""
    total = sum(map(Counter, counts), Counter[str]())
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))
