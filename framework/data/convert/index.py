"""An index and a manifest for shards that others wrote: from then on they are a shard set like our own."""

import tarfile
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from framework.core.errors import ConfigError, DataError
from framework.core.io import locked_folder, sync_folder
from framework.data.archives.tar import MAX_MEMBER_BYTES, UNREADABLE
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
from framework.data.shards.labels import classes_of, refuse_doubles
from framework.data.shards.manifest import INDEX, MANIFEST, UNCONDITIONAL, Kind, Manifest, Skipped
from framework.data.shards.shard import Found, Scan, index_rows, scan_shard
from framework.data.shards.validate_sample import UnreadableSample, validate_sample

_SPLIT = "WebDataset splits a name at its first dot, and takes the rest for the kind of the member"
_FEW_CLASSES = 100


@dataclass(frozen=True, kw_only=True)
class IndexOptions:
    """How shards are read.

    Attributes:
        classes: names of the classes, where labels are numbers; the numbers themselves without it.
        label_key: key of the label in the JSON member of an image without a `cls` member.
        max_member_bytes: no member may be larger.
        strict: refuse shards with samples that cannot be read, or whose keys have dots.
        workers: number of threads; 0 means one for each CPU core that this process may use.
        overwrite: replace the index and the manifest that are there.
        unconditional: images need no labels: all are of one class.
        read: how images are read, and which are refused.

    Raises:
        ConfigError: a number out of range, or class names that would be taken for other classes' numbers.
    """

    classes: tuple[str, ...] | None = None
    label_key: str = "label"
    max_member_bytes: int = MAX_MEMBER_BYTES
    strict: bool = False
    workers: int = 0
    overwrite: bool = False
    unconditional: bool = False
    read: ReadOptions = DEFAULT

    def __post_init__(self) -> None:
        if self.max_member_bytes < 1 or self.workers < 0:
            problem = f"max_member_bytes is {self.max_member_bytes}, workers is {self.workers}"
            raise ConfigError(problem, hint="give at least 1 and 0")
        if self.unconditional and self.classes is not None:
            raise ConfigError("unconditional data have no classes", hint="leave out --classes or --unconditional")
        names = self.classes or ()
        refuse_doubles(names)
        for number, name in enumerate(names):
            if name.isdecimal() and name != str(number):
                raise ConfigError(f"class {number} is called {name!r}", hint="give names that are no numbers")


def index_shards(folder: str | Path, options: IndexOptions = IndexOptions()) -> Manifest:
    """Writes `index.npy` and `manifest.json` beside the `.tar` files of a folder, taken in the order of their names.

    A sample is what shares a key: the name up to the first dot of its base name (WebDataset's convention). Samples with
    an image (a suffix of any format that is read) need a `cls` member, a label in a `json` member, or a `txt` member: a
    number from 0, or a name; names are numbered in their sorted order. Samples without images are their `json` member:
    episodes. Other members are ignored, and counted in the manifest. Images are opened, not decoded: `framework shards
    check` does that.

    Returns:
        What was found, with the samples that were skipped and why.

    Raises:
        DataError: no shards; one that is truncated, damaged, or has a member that is unsafe, too large, or there
            twice; samples without labels; both kinds of samples; an index that is there; a folder that is read-only.
    """
    folder = Path(folder)
    shards = _shards(folder)
    try:
        with locked_folder(folder):
            _make_way(folder, overwrite=options.overwrite)
            scan = partial(_scan, options=options)
            scans = map_with_progress(scan, shards, workers=options.workers, total=len(shards), noun="shards")
            kind = _common_kind(shards, scans)
            classes = _classes(scans, options) if kind == "images" else ()
            tasks = [_Task(path=path, scan=scan) for path, scan in zip(shards, scans, strict=True)]
            numbers = {name: number for number, name in enumerate(classes)}
            indexed = map_with_progress(
                partial(_index_one, kind=kind, classes=numbers, options=options.read),
                tasks,
                workers=options.workers,
                total=sum(len(scan.samples) for scan in scans),
                noun=kind,
            )
            skipped = tuple(skipped for each in indexed for skipped in each.facts.skipped) + _dotted(shards, scans)
            if options.strict:
                refuse_skipped(skipped)
            known = SetFacts(
                classes=classes,
                kind=kind,
                skipped=skipped + _ignored(scans),
                empty_classes=True,
                label_key=options.label_key,
                unconditional=options.unconditional and kind == "images",
                read=options.read,
            )
            return finalize_set(folder, indexed, known)
    except OSError as error:
        problem = f"cannot write {error.filename or folder} ({error.strerror or error})"
        raise DataError(problem, hint="make room, or make the folder writable") from error


@dataclass(frozen=True, kw_only=True)
class _Task:
    path: Path
    scan: Scan


def _shards(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"no shards at {folder}: it is not a folder", hint="give the folder that holds the .tar files")
    shards = sorted(path for path in folder.glob("*.tar") if not path.name.startswith("."))
    if not shards:
        packed = sorted(path.name for suffix in (".tar.*", ".tgz") for path in folder.glob(f"*{suffix}"))
        hint = f"unpack {packed[0]} and the like to .tar" if packed else "give the folder that holds the .tar files"
        raise DataError(f"{folder} holds no .tar files", hint=hint)
    return shards


def _make_way(folder: Path, *, overwrite: bool) -> None:
    """Removes an old manifest, then its index."""
    if (folder / MANIFEST).exists():
        if not overwrite:
            raise DataError(f"{folder} already has a {MANIFEST}", hint="use --overwrite to index it anew")
        (folder / MANIFEST).unlink()
        sync_folder(folder)
    (folder / INDEX).unlink(missing_ok=True)


def _scan(path: Path, progress: SampleProgress, *, options: IndexOptions) -> Scan:
    """What is in a shard; runs in a thread."""
    try:
        scan = scan_shard(
            path,
            max_member_bytes=options.max_member_bytes,
            label_key=options.label_key,
            labelled=not options.unconditional,
        )
    except UNREADABLE as error:
        raise DataError(f"shard {path} cannot be used: {error}", hint=_hint(error)) from None
    progress.advance()
    return scan


def _hint(error: Exception) -> str:
    if "lacks its label" in str(error):
        return "add it, or use --unconditional for images without classes"
    if "no label under the key" in str(error):
        return "name its key with --label_key, or use --unconditional for images without classes"
    if "has the label" in str(error):
        return "write it anew, or use --unconditional to have the images without classes"
    if "more than" in str(error):
        return "if that is meant, raise the bound with --max_member_mib"
    if isinstance(error, tarfile.TarError) or "truncated" in str(error) or "damaged" in str(error):
        return "fetch or make the shard again"
    return "make the shard again without it"


def _common_kind(shards: list[Path], scans: list[Scan]) -> Kind:
    first: dict[Kind, Path] = {}
    for path, scan in zip(shards, scans, strict=True):
        if scan.kind is not None:
            first.setdefault(scan.kind, path)
    if len(first) == 2:
        problem = f"shard {first['images'].name} holds images and {first['episodes'].name} JSON alone"
        raise DataError(problem, hint="keep them in folders of their own")
    if not first:
        hint = "give shards with jpg, png or webp members and their labels, or with json members"
        dotted = [name for scan in scans for name in scan.dotted]
        why = ""
        if dotted:
            why = f": {len(dotted)} members have a dot in their key, such as {dotted[0]!r}; {_SPLIT}"
            hint = "write them with names that have no dot but the one before the suffix"
        raise DataError(f"no sample in the {len(shards)} shards at {shards[0].parent}{why}", hint=hint)
    return next(iter(first))


def _classes(scans: list[Scan], options: IndexOptions) -> tuple[str, ...]:
    """Class names: those that were given, the labels where they are names, or the numbers up to the largest.

    Raises:
        DataError: labels beyond the names that were given, or some that are names and some that are numbers.
    """
    if options.unconditional:
        return (UNCONDITIONAL,)
    labels = {found.label for scan in scans for found in scan.samples if found.label is not None}
    num_texts = sum(scan.num_texts for scan in scans)
    if len(labels) > max(_FEW_CLASSES, num_texts / 2) and num_texts:
        problem = f"the txt members of {num_texts:,} images hold {len(labels):,} different texts: captions, not classes"
        raise DataError(problem, hint="use --unconditional to have the images without classes")
    return classes_of(labels, options.classes, where="the shards")


def _index_one(
    task: _Task, progress: SampleProgress, *, kind: Kind, classes: dict[str, int], options: ReadOptions
) -> Indexed:
    """Opens every sample of a shard; runs in a thread.

    Args:
        task: which.
        progress: counts the samples.
        kind: of the samples.
        classes: their numbers by name.
        options: how images are read.
    """
    sizes: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    skipped: list[Skipped] = []
    notes = NoteCounter()
    kept: list[Found] = []
    with task.path.open("rb") as stream:
        for found in task.scan.samples:
            progress.advance()
            stream.seek(found.member.offset)
            try:
                facts = validate_sample(stream.read(found.member.size), kind=kind, header_only=True, options=options)
            except UnreadableSample as error:
                skipped.append(Skipped(source=f"{task.path.name}/{found.member.name}", reason=str(error)))
                continue
            notes.add(facts.notes, source=f"{task.path.name}/{found.member.name}")
            kept.append(found)
            if kind == "images":
                sizes[facts.size] += 1
                modes[facts.mode] += 1
    rows = index_rows(kept, classes)
    record = record_of(task.path, num_samples=len(rows))
    facts = ShardFacts(record=record, sizes=dict(sizes), modes=dict(modes), skipped=tuple(skipped), notes=notes.notes())
    return Indexed(facts=facts, rows=rows)


def _dotted(shards: list[Path], scans: list[Scan]) -> tuple[Skipped, ...]:
    """One entry for each shard with members whose key has a dot."""
    return tuple(
        Skipped(
            source=f"{path.name}/{scan.dotted[0]}",
            reason=f"the first of {len(scan.dotted):,} members with a dot in their key; {_SPLIT}",
        )
        for path, scan in zip(shards, scans, strict=True)
        if scan.dotted
    )


def _ignored(scans: list[Scan]) -> tuple[Skipped, ...]:
    """One entry for each kind of member that nobody reads."""
    total = sum((scan.ignored for scan in scans), Counter())
    return tuple(
        Skipped(source=f"*.{suffix}", reason=f"{count} members of a kind that is not read")
        for suffix, count in sorted(total.items())
    )
