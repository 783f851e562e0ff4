"""Whether a shard set is what its manifest says: every byte, member, label, pixel and JSON object."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from framework.core.errors import DataError
from framework.core.io import sha256_of
from framework.data.images.complaints import every_warning
from framework.data.images.notes import ImageNote, NoteCounter
from framework.data.images.options import Damaged, Orientation, ReadOptions
from framework.data.shards.manifest import INDEX, MANIFEST, Manifest, ShardRecord, read_manifest
from framework.data.shards.parallel import map_in_threads
from framework.data.shards.reader import read_index
from framework.data.shards.shard import Found, index_rows, scan_shard
from framework.data.shards.tar import MAX_MEMBER_BYTES, UNREADABLE
from framework.data.shards.validate_sample import TrainingPixels, UnreadableSample, validate_sample


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """How thoroughly a shard set is checked.

    Attributes:
        training: what training will ask of the images, to be tried.
        orientation: apply or ignore the EXIF orientation; as the set was made without it.
        damaged: keep and count images that decoders complain about, or report them; as the set was made without it.
    """

    training: TrainingPixels | None = None
    orientation: Orientation | None = None
    damaged: Damaged | None = None

    def read_options(self, made_with: ReadOptions) -> ReadOptions:
        """How images of a set that was `made_with` certain options are read."""
        return replace(
            made_with,
            orientation=self.orientation or made_with.orientation,
            damaged=self.damaged or made_with.damaged,
        )


def check_shards(
    dest: str | Path, options: CheckOptions = CheckOptions(), *, workers: int = 0, notes: NoteCounter | None = None
) -> list[str]:
    """Lists everything that is wrong with a shard set. Its images are read as training reads them.

    Args:
        dest: its folder; a set at a URL must be copied first.
        options: how.
        workers: number of threads; 0 means one for each CPU core that this process may use.
        notes: gets what is worth telling about images that can be used.

    Returns:
        One line for each problem; none when the set is good.
    """
    dest = Path(dest)
    try:
        manifest = read_manifest(dest)
    except DataError as error:
        return [str(error)]
    problems = _check_folder(dest, manifest) + _check_totals(manifest)
    index: np.ndarray | None = None
    try:
        index = read_index(dest, manifest)
        if sha256_of(dest / INDEX) != manifest.index_sha256:
            problems.append(f"{INDEX}: its sha256 is not the manifest's")
    except DataError as error:
        problems.append(str(error))
    tasks = [
        _Task(
            path=dest / record.name,
            record=record,
            rows=None if index is None else np.array(index[index[:, 0] == shard][:, 1:]),
            manifest=manifest,
            options=options,
        )
        for shard, record in enumerate(manifest.shards)
    ]
    found: Counter[int] = Counter()
    with every_warning():
        for checked in map_in_threads(_check_one, tasks, workers=workers):
            problems += checked.problems
            found.update(checked.labels)
            if notes is not None:
                notes.merge(checked.notes)
    # A shard that cannot be read has been reported; the counts would only say so again.
    if not problems:
        for label, (name, count) in enumerate(zip(manifest.classes, manifest.class_counts, strict=True)):
            if found[label] != count:
                problems.append(f"class {name!r}: {found[label]} images, the manifest says {count}")
    return problems


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A shard, its record, its part of the index (offset, size, label), None when there is no index, and how."""

    path: Path
    record: ShardRecord
    rows: np.ndarray | None
    manifest: Manifest
    options: CheckOptions


@dataclass(frozen=True, kw_only=True)
class _Checked:
    """What is wrong with a shard, how often each label is in it, and what is worth telling."""

    problems: tuple[str, ...]
    labels: Counter[int]
    notes: tuple[ImageNote, ...] = ()


def _check_folder(dest: Path, manifest: Manifest) -> list[str]:
    """Files that should not be there."""
    expected = {MANIFEST, INDEX, *(record.name for record in manifest.shards)}
    strays = sorted({path.name for path in dest.iterdir()} - expected)
    if manifest.label_key is not None:
        # Others keep notes beside their shards.
        strays = [name for name in strays if name.endswith(".tar")]
    return [f"{name}: not in the manifest" for name in strays]


def _check_totals(manifest: Manifest) -> list[str]:
    """Numbers of the manifest that contradict each other."""
    sums = {"samples of its shards": sum(record.num_samples for record in manifest.shards)}
    if manifest.kind == "images":
        sums |= {
            "images of its classes": sum(manifest.class_counts),
            "images of its sizes": sum(manifest.image_sizes.values()),
            "images of its modes": sum(manifest.image_modes.values()),
        }
    problems = [
        f"{MANIFEST}: {manifest.num_samples} samples, but {total} {what}"
        for what, total in sums.items()
        if total != manifest.num_samples
    ]
    if len(manifest.class_counts) != len(manifest.classes):
        problems.append(f"{MANIFEST}: {len(manifest.classes)} classes, but {len(manifest.class_counts)} counts")
    if sum(record.num_bytes for record in manifest.shards) != manifest.num_bytes:
        problems.append(f"{MANIFEST}: its number of bytes is not the sum of its shards'")
    return problems


def _check_one(task: _Task) -> _Checked:
    """Checks a shard; runs in a thread."""
    name, problems = task.record.name, []
    nothing: Counter[int] = Counter()
    try:
        size = task.path.stat().st_size
        if size != task.record.num_bytes:
            problems.append(f"{name}: {size:,} bytes, the manifest says {task.record.num_bytes:,}")
        elif sha256_of(task.path) != task.record.sha256:
            problems.append(f"{name}: its sha256 is not the manifest's")
        samples = _samples(task)
        rows = index_rows(samples, {name: number for number, name in enumerate(task.manifest.classes)})
    except FileNotFoundError:
        return _Checked(problems=(f"{name}: missing",), labels=nothing)
    except UNREADABLE as error:
        return _Checked(problems=(*problems, f"{name}: not a readable shard ({error})"), labels=nothing)
    if len(rows) != task.record.num_samples:
        problems.append(f"{name}: {len(rows)} samples, the manifest says {task.record.num_samples}")
    if task.rows is not None and not np.array_equal(rows, task.rows):
        problems.append(f"{name}: the index does not describe it")
    notes = NoteCounter()
    problems += _check_samples(task, samples, rows, notes)
    return _Checked(problems=tuple(problems), labels=Counter(rows[:, 2].tolist()), notes=notes.notes())


def _samples(task: _Task) -> list[Found]:
    """The samples of a shard without those that were skipped when it was indexed."""
    # What the index does not know is not read whole to find that out.
    largest = MAX_MEMBER_BYTES if task.rows is None else max([MAX_MEMBER_BYTES, *task.rows[:, 1].tolist()])
    scan = scan_shard(task.path, max_member_bytes=largest, label_key=task.manifest.label_key)
    if scan.kind not in (None, task.manifest.kind):
        raise ValueError(f"it holds {scan.kind}")
    skipped = {each.source for each in task.manifest.skipped} if task.manifest.label_key is not None else set()
    return [found for found in scan.samples if f"{task.record.name}/{found.member.name}" not in skipped]


def _check_samples(task: _Task, samples: list[Found], rows: np.ndarray, notes: NoteCounter) -> Iterator[str]:
    """Samples of a shard whose label or bytes cannot be used.

    Args:
        task: which shard.
        samples: that are in it.
        rows: of the index, for each sample.
        notes: gets what is worth telling about the others.
    """
    read = task.options.read_options(task.manifest.read)
    name, kind, num_classes = task.record.name, task.manifest.kind, len(task.manifest.classes)
    noun = "image" if kind == "images" else "JSON"
    with task.path.open("rb") as stream:
        for found, (offset, size, label) in zip(samples, rows.tolist(), strict=True):
            if kind == "images" and not 0 <= label < num_classes:
                yield f"{name}: label {label} at byte {offset} is not one of {num_classes} classes"
            stream.seek(offset)
            try:
                data = stream.read(size)
                facts = validate_sample(data, kind=kind, options=read, training=task.options.training)
            except UnreadableSample as error:
                yield f"{name}: the {noun} at byte {offset} cannot be decoded ({error}; member {found.member.name})"
                continue
            notes.add(facts.notes, source=f"{name}/{found.member.name}")
