"""ImageNet as it is given out (ILSVRC2012): a tar of class tars to train on, a tar of images to validate on."""

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from framework.core.console import working
from framework.core.errors import ConfigError, DataError
from framework.core.text_files import read_lines
from framework.data.archives.tar import UNREADABLE, Member, part_of, walk_tar
from framework.data.convert.contents import identity_of, open_parts
from framework.data.images.formats import is_image_name
from framework.data.shards.manifest import Manifest, Skipped
from framework.data.shards.writer import Listing, SourceFile, WriteOptions, write_listing

_WNID = re.compile(r"n\d{8}")


def write_imagenet_shards(
    source: str | Path,
    dest: str | Path,
    *,
    labels: str | Path | None = None,
    numbering: str | Path | None = None,
    options: WriteOptions = WriteOptions(),
) -> Manifest:
    """Writes ILSVRC2012_img_train.tar or ILSVRC2012_img_val.tar as a shard set; nothing is unpacked.

    Which one it is shows in its members: `WNID.tar` for each class, or images. Classes are WNIDs, numbered in their
    sorted order in both, so a validation set that has an image of every class fits the training set.

    Args:
        source: the tar file.
        dest: folder of the shard set; made if it is missing.
        labels: for the validation tar: a text file with a line for each image, in the order of the images' names. A
            line begins with a WNID, or with a number from 1 (as ILSVRC2012_validation_ground_truth.txt has them).
        numbering: needed where `labels` are numbers: a text file with a line for each number, in their order, that
            begins with its WNID. For the file named above that is the order of ILSVRC2012_ID in the development kit's
            meta.mat, which is not the sorted one.
        options: how the set is written.

    Returns:
        What was written, with the files that were skipped and why.

    Raises:
        ConfigError: labels that are missing, or not wanted.
        DataError: no such tar, one that is truncated or damaged, labels that do not fit, or what `write_listing`
            raises.
    """
    source = Path(source)
    try:
        with working(f"listing {source}"), source.open("rb") as stream:
            members = list(walk_tar(stream, max_member_bytes=None))
            if any(member.name.endswith(".tar") for member in members):
                if labels is not None:
                    raise ConfigError(
                        f"{source} holds class tars", hint="leave out --labels: the tars name the classes"
                    )
                listing = _train_listing(stream, members)
            else:
                listing = _validation_listing(source, members, labels=labels, numbering=numbering)
    except UNREADABLE as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"{source} cannot be read ({reason})", hint="give a whole ILSVRC2012 tar") from error
    listing = replace(listing, identity=identity_of(source))
    with open_parts(source) as read:
        return write_listing(Path(dest), listing, read, kind="images", options=options)


def _train_listing(stream: io.BufferedIOBase, members: list[Member]) -> Listing:
    """The images of the class tars, sorted by class, then by name."""
    skipped: list[Skipped] = []
    tars: dict[str, Member] = {}
    for member in members:
        path = PurePosixPath(member.name)
        if path.suffix != ".tar":
            skipped.append(Skipped(source=member.name, reason="no tar of a class"))
        elif path.stem in tars:
            raise ValueError(f"two tars for class {path.stem!r}")
        else:
            tars[path.stem] = member
    classes = tuple(sorted(tars))
    files: list[SourceFile] = []
    for label, name in enumerate(classes):
        files += sorted(_class_files(stream, tars[name], label, skipped), key=lambda file: file.path)
    return Listing(classes=classes, files=tuple(files), skipped=tuple(skipped))


def _class_files(stream: io.BufferedIOBase, tar: Member, label: int, skipped: list[Skipped]) -> Iterator[SourceFile]:
    name = PurePosixPath(tar.name).stem
    try:
        for member in walk_tar(part_of(stream, offset=tar.offset, size=tar.size)):
            path = f"{name}/{member.name}"
            if is_image_name(member.name):
                yield SourceFile(path=path, label=label, offset=tar.offset + member.offset, size=member.size)
            else:
                skipped.append(Skipped(source=path, reason="not an image file name"))
    except UNREADABLE as error:
        raise ValueError(f"in member {tar.name!r}: {error}") from error


def _validation_listing(
    source: Path, members: list[Member], *, labels: str | Path | None, numbering: str | Path | None
) -> Listing:
    """The images in the order of their names, with the classes of the lines of `labels`."""
    if labels is None:
        hint = "give the list of their classes: --labels FILE, a WNID or a number from 1 for each image in a line"
        raise ConfigError(f"{source} holds images without classes", hint=hint)
    images = sorted((each for each in members if is_image_name(each.name)), key=lambda each: each.name)
    if not images:
        raise DataError(f"{source} holds neither class tars nor images", hint="give an ILSVRC2012 tar")
    words = _first_words(Path(labels))
    if len(words) != len(images):
        problem = f"{labels} has {len(words)} lines for {len(images)} images"
        raise DataError(problem, hint="give a line for each image, in the order of the images' names")
    if all(word.isdecimal() for word in words):
        if numbering is None:
            hint = "give --numbering FILE with the WNID of each number in a line (ILSVRC2012_ID of the development kit)"
            raise ConfigError(f"{labels} numbers the classes", hint=hint)
        words = _renumbered(words, _first_words(Path(numbering)), where=str(labels))
    for line, word in enumerate(words, start=1):
        if not _WNID.fullmatch(word):
            raise DataError(f"line {line} of {labels} begins with {word!r}", hint="begin it with a WNID (n01440764)")
    classes = tuple(sorted(set(words)))
    numbers = {name: number for number, name in enumerate(classes)}
    files = tuple(
        SourceFile(path=member.name, label=numbers[word], offset=member.offset, size=member.size)
        for member, word in zip(images, words, strict=True)
    )
    left = set(members) - set(images)
    skipped = tuple(
        Skipped(source=name, reason="not an image file name") for name in sorted(each.name for each in left)
    )
    return Listing(classes=classes, files=files, skipped=skipped)


def _renumbered(words: list[str], names: list[str], *, where: str) -> list[str]:
    """The WNIDs of numbers from 1."""
    for line, word in enumerate(words, start=1):
        if not 1 <= int(word) <= len(names):
            problem = f"line {line} of {where} is {word}, and the numbering has {len(names)} lines"
            raise DataError(problem, hint="give numbers from 1, and the whole numbering")
    return [names[int(word) - 1] for word in words]


def _first_words(path: Path) -> list[str]:
    return [line.split()[0] for line in read_lines(path, hint="give a text file with a line for each")]
