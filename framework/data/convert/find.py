"""Which files of a container are images, and what class each has: by its folder, by a file of labels, or none."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from framework.core.errors import ConfigError, DataError
from framework.data.archives.names import inside, printable
from framework.data.archives.tar import MAX_MEMBER_BYTES
from framework.data.convert.contents import Contents, as_prefix, too_large
from framework.data.convert.label_file import LabelColumns, read_label_file
from framework.data.images.formats import is_image_name
from framework.data.shards.finalize import name_some
from framework.data.shards.labels import classes_of, refuse_doubles, whole_number
from framework.data.shards.manifest import UNCONDITIONAL, Skipped
from framework.data.shards.writer import Listing, SourceFile

# Parts of a data set that its folders are named after, more often than classes.
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval", "unlabeled"})
_NOT_IMAGE = "not an image file name"
_HIDDEN = "hidden: a name with a dot before it, or __MACOSX"


@dataclass(frozen=True, kw_only=True)
class FindOptions:
    """Where the images of a source are, and their classes.

    Attributes:
        folder: folder inside the source that holds the class folders, or the images.
        labels: a CSV or JSON-lines file with the class of each image, instead of class folders.
        columns: of that file.
        classes: names of all classes, in the order of their numbers; by default those that are found.
        unconditional: the images have no classes.
        follow_links: symbolic links count as what they point at.

    Raises:
        ConfigError: options that contradict each other.
    """

    folder: str = ""
    labels: Path | None = None
    columns: LabelColumns = LabelColumns()
    classes: tuple[str, ...] | None = None
    unconditional: bool = False
    follow_links: bool = False

    def __post_init__(self) -> None:
        if self.unconditional and (self.labels is not None or self.classes is not None):
            raise ConfigError("unconditional data have no classes", hint="leave out --unconditional, or the labels")
        if self.labels is None and self.columns != LabelColumns():
            raise ConfigError("columns are those of a file of labels", hint="give one with --labels, or leave them out")
        refuse_doubles(self.classes or ())


def find_images(contents: Contents, options: FindOptions, *, where: str) -> Listing:
    """Lists the images of a container with their classes.

    Args:
        contents: of the container.
        options: where they are.
        where: name of the container, for messages.

    Raises:
        DataError: no images, no class folders, a class without an image, or labels that do not fit.
    """
    prefix = as_prefix(options.folder)
    found = _sort_files(contents)
    where = f"{where}/{prefix}".rstrip("/")
    if not found.files and not found.folders and not found.skipped:
        raise DataError(f"{where} is empty or does not exist", hint="give the folder that holds the images")
    if options.labels is not None:
        listing = _by_labels(found, options.labels, options, prefix, where=where)
    elif options.unconditional:
        listing = _without_classes(found, where=where)
    else:
        listing = _by_folders(found, options, prefix, where=where)
    files = listing.files
    if contents.in_order:
        files = tuple(sorted(files, key=lambda file: file.offset))
    ordered = tuple(sorted(listing.skipped, key=lambda each: each.source))
    return replace(listing, files=files, skipped=ordered, hidden=found.hidden, identity=contents.identity)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """The files of a container.

    Attributes:
        files: those that can be read, whatever they are.
        folders: paths of folders.
        skipped: what cannot be read.
        hidden: what is ignored for its name.
    """

    files: dict[str, SourceFile]
    folders: frozenset[str]
    skipped: list[Skipped]
    hidden: tuple[Skipped, ...]


def _sort_files(contents: Contents) -> _Found:
    files: dict[str, SourceFile] = {}
    hidden: list[Skipped] = []
    skipped = list(contents.skipped)
    for path, file in contents.files.items():
        if _is_hidden(path):
            hidden.append(Skipped(source=path, reason=_HIDDEN))
        elif file.size > MAX_MEMBER_BYTES and is_image_name(path):
            skipped.append(Skipped(source=path, reason=too_large(file.size)))
        else:
            files[path] = file
    folders = frozenset(path for path in contents.folders if not _is_hidden(path))
    hidden.sort(key=lambda each: each.source)
    return _Found(files=files, folders=folders, skipped=skipped, hidden=tuple(hidden))


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


def _split_images(found: _Found) -> tuple[list[SourceFile], list[Skipped]]:
    """The images by their names, sorted, and all that is none."""
    images = [found.files[path] for path in sorted(found.files) if is_image_name(path)]
    others = [Skipped(source=path, reason=_NOT_IMAGE) for path in found.files if not is_image_name(path)]
    return images, found.skipped + others


def _without_classes(found: _Found, *, where: str) -> Listing:
    images, skipped = _split_images(found)
    if not images:
        problem = f"{where} holds no image: {name_some((*skipped, *found.hidden))}"
        raise DataError(problem, hint="give a source with some")
    files = tuple(replace(each, label=0) for each in images)
    return Listing(classes=(UNCONDITIONAL,), files=files, skipped=tuple(skipped), unconditional=True)


def _by_folders(found: _Found, options: FindOptions, prefix: str, *, where: str) -> Listing:
    """The first folder below the prefix is the class, however deep in it an image lies (as torchvision has it)."""
    images, skipped = _split_images(found)
    of_class: defaultdict[str, list[SourceFile]] = defaultdict(list)
    for folder in found.folders:
        of_class[folder.removeprefix(prefix).partition("/")[0]] = []
    for path in found.files:
        name, slash, _ = path.removeprefix(prefix).partition("/")
        if slash:
            of_class[name] = []
    loose: list[Skipped] = []
    for file in images:
        name, slash, _ = file.path.removeprefix(prefix).partition("/")
        if slash:
            of_class[name].append(file)
        else:
            loose.append(Skipped(source=file.path, reason="not in a class folder"))
    skipped += loose
    if not of_class:
        _refuse_loose(loose, (*skipped, *found.hidden), where=where)
    _refuse_splits(of_class, prefix, where=where)
    if options.classes is None:
        _refuse_empty(of_class, prefix, (*skipped, *found.hidden), where=where)
    classes = _in_order(set(of_class), options.classes, where=where)
    files = tuple(replace(file, label=label) for label, name in enumerate(classes) for file in of_class.get(name, ()))
    return Listing(classes=classes, files=files, skipped=tuple(skipped), empty_classes=options.classes is not None)


def _refuse_loose(loose: list[Skipped], left_out: Sequence[Skipped], *, where: str) -> None:
    """Raises DataError for a source without class folders, with what it has instead."""
    if loose:
        problem = f"{where} holds no class folders, but {len(loose):,} images such as {loose[0].source}"
        hint = "use --unconditional for images without classes, give their classes with --labels FILE, or put those "
        raise DataError(problem, hint=hint + "of each class into a folder of its own")
    problem = f"{where} holds no class folders: {name_some(left_out)}"
    hint = "put the images of each class into a folder of its own"
    if any(each.source.endswith(".tar") for each in left_out):
        hint = "for ImageNet's tar of class tars, use framework shards imagenet"
    raise DataError(problem, hint=hint)


def _refuse_splits(of_class: Mapping[str, list[SourceFile]], prefix: str, *, where: str) -> None:
    """Raises DataError where the classes are probably a level deeper: in one folder, or in those of splits."""
    names = sorted(name for name, files in of_class.items() if files)
    direct = any(file.path.count("/") == prefix.count("/") + 1 for name in names for file in of_class[name])
    if direct or not names or not (len(names) == 1 or _SPLITS.issuperset(map(str.lower, names))):
        return
    problem = f"class {names[0]!r} in {where} holds no image itself, but its sub-folders do"
    hint = f"if the classes are the folders inside it, use --folder {prefix}{names[0]}"
    raise DataError(problem, hint=hint + ("; if it is all one class, --unconditional" if len(names) == 1 else ""))


def _refuse_empty(
    of_class: Mapping[str, list[SourceFile]], prefix: str, left_out: Sequence[Skipped], *, where: str
) -> None:
    """Raises DataError for a class folder without an image, with all that it holds instead."""
    for name in sorted(of_class):
        if not of_class[name]:
            ours = [each for each in left_out if each.source.startswith(f"{printable(prefix + name)}/")]
            why = name_some(ours) if ours else "it is empty"
            problem = f"class {printable(name)!r} in {where} holds no image: {why}"
            raise DataError(problem, hint="add images to it or remove its folder")


def _in_order(names: set[str], given: tuple[str, ...] | None, *, where: str) -> tuple[str, ...]:
    """The classes: those that were given, or the names sorted. Raises DataError for one that was not given."""
    if given is None:
        return tuple(sorted(names))
    if foreign := sorted(names - set(given)):
        problem = f"class {printable(foreign[0])!r} in {where} is none of the {len(given)} classes that were given"
        raise DataError(problem, hint="give the names of all classes")
    return given


def _by_labels(found: _Found, path: Path, options: FindOptions, prefix: str, *, where: str) -> Listing:
    """The files that a file of labels names; all others are left out."""
    labels = read_label_file(path, options.columns)
    by_name, ambiguous = _names_of(found.files, prefix)
    of_file: dict[str, tuple[str, int]] = {}
    skipped = list(found.skipped)
    for line, name, label in labels.rows:
        file = _look_up(by_name, name)
        if file is None:
            why = "several files have this name before their suffixes" if name in ambiguous else "it is not there"
            skipped.append(Skipped(source=name, reason=f"{path.name} names it (line {line}), but {why}"))
        elif not label:
            skipped.append(Skipped(source=file, reason=f"without a label in {path.name} (line {line})"))
        elif of_file.setdefault(file, (label, line))[0] != label:
            problem = (
                f"{file} is {of_file[file][0]!r} in line {of_file[file][1]} of {path} and {label!r} in line {line}"
            )
            raise DataError(problem, hint="give each image one class")
    if not of_file:
        problem = f"none of the {len(labels.rows):,} files that {path} names is in {where}: {name_some(skipped)}"
        raise DataError(problem, hint=f"it names them in {labels.path_column}; give paths from {where} on")
    named = {each.source for each in skipped} | of_file.keys()
    skipped += [
        Skipped(source=file, reason=f"not in {path.name}" if is_image_name(file) else _NOT_IMAGE)
        for file in found.files
        if file not in named
    ]
    classes = classes_of({label for label, _ in of_file.values()}, options.classes, where=str(path))
    numbers = {name: number for number, name in enumerate(classes)}
    files = tuple(
        sorted(
            (
                replace(found.files[file], label=numbers.get(label, whole_number(label)))
                for file, (label, _) in of_file.items()
            ),
            key=lambda file: (file.label, file.path),
        )
    )
    return Listing(classes=classes, files=files, skipped=tuple(skipped), empty_classes=True)


def _names_of(files: Iterable[str], prefix: str) -> tuple[dict[str, str], set[str]]:
    """Files by what a list may call them: the path from the prefix on, from the source on, or without its suffix.

    Args:
        files: paths from the source on.
        prefix: of those that are called without it.

    Returns:
        The files, and the names without suffix that several have.
    """
    paths = sorted(files)
    stems = Counter(path.removeprefix(prefix).rpartition(".")[0] for path in paths if is_image_name(path))
    names: dict[str, str] = {}
    # Mac's archives write accents as characters of their own; a list is rarely made on the same machine.
    for path in paths:
        names[_composed(path)] = names[_composed(path.removeprefix(prefix))] = path
    for path in paths:
        stem = path.removeprefix(prefix).rpartition(".")[0]
        if stems[stem] == 1 and is_image_name(path):
            names[_composed(stem)] = names[stem] = path
    # Whole names come last: they count for more.
    names |= {path: path for path in paths} | {path.removeprefix(prefix): path for path in paths}
    return names, {stem for stem, count in stems.items() if count > 1}


def _look_up(by_name: Mapping[str, str], name: str) -> str | None:
    """The file that a list calls by a name, written as on whatever system."""
    names = (inside(name) or name, inside(name.replace("\\", "/")))
    known = (by_name.get(each, by_name.get(_composed(each))) for each in names if each)
    return next((file for file in known if file is not None), None)


def _composed(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)
