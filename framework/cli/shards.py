"""The commands around shards; the docstrings are their `--help`."""

import json
from pathlib import Path
from typing import Any, Literal

from rich.filesize import decimal
from rich.table import Table

from framework.cli.contact_sheet import save_contact_sheet
from framework.core.console import console, results, visible
from framework.core.errors import ConfigError, DataError
from framework.core.io import check_outputs
from framework.core.text_files import read_lines
from framework.data.convert.class_folders import write_image_shards
from framework.data.convert.digits import write_digit_images
from framework.data.convert.find import FindOptions
from framework.data.convert.hf import write_hf_shards
from framework.data.convert.imagenet import write_imagenet_shards
from framework.data.convert.index import IndexOptions, index_shards
from framework.data.convert.jsonl import write_jsonl_shards
from framework.data.convert.label_file import LabelColumns
from framework.data.images.notes import NoteCounter
from framework.data.images.options import DAMAGE, Damaged, Orientation, ReadOptions
from framework.data.remote.files import RemoteConfig
from framework.data.shards.check import CheckOptions, check_shards
from framework.data.shards.reader import ShardSet
from framework.data.shards.source_paths import find_source
from framework.data.shards.stats import measure
from framework.data.shards.summary import print_notes, print_summary
from framework.data.shards.validate_sample import TrainingPixels
from framework.data.shards.writer import WriteOptions

_NUM_LISTED = 20


def images(
    source: str,
    dest: str,
    *,
    folder: str = "",
    labels: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    classes: str | None = None,
    unconditional: bool = False,
    follow_links: bool = False,
    samples_per_shard: int = 4096,
    strict: bool = False,
    workers: int = 0,
    overwrite: bool = False,
    **read: Any,
) -> None:
    """Make shards of images from a folder, a zip, a tar or a packed tar, with a folder for each class by default.

    An image counts as of the first folder that it is in, however deep. Formats are those that Pillow reads, by the
    suffixes of the files, which are kept as they are; when they are read, the first frame of an animation counts, and
    transparent pixels become white. What is left out is listed with its reason. DEST gets WebDataset tar shards, an
    index, sources.tsv (where each sample comes from) and manifest.json, which comes last: a set without one is
    unfinished, and the same call goes on with it. The same source gives the same bytes; of a packed tar in its order.

    Args:
        source: a folder, a .zip, a .tar or a .tar.gz (.bz2, .xz).
        dest: folder of the new shard set.
        folder: folder inside SOURCE that holds the class folders, such as `train`.
        labels: a CSV file with a heading, or JSON lines, of paths from FOLDER on and classes: names, or numbers from 0.
        path_column: its column of paths; by default file_name, filename, file, path, image, ...
        label_column: its column of labels; by default label, class, category, target, ...
        classes: a text file with the name of each class in a line, by their numbers; else sorted as they are found.
        unconditional: the images have no classes.
        follow_links: symbolic links count as what they point at; otherwise only those to files inside SOURCE.
        samples_per_shard: images in a shard.
        strict: refuse a source with files that cannot be used, instead of listing and counting them.
        workers: threads; 0 takes one for each core.
        overwrite: replace a finished shard set in DEST.
        **read: how images are read, and which are left out.
    """
    find = FindOptions(
        folder=folder,
        labels=None if labels is None else Path(labels),
        columns=LabelColumns(path=path_column, label=label_column),
        classes=_class_names(classes),
        unconditional=unconditional,
        follow_links=follow_links,
    )
    manifest = write_image_shards(
        source,
        dest,
        find=find,
        samples_per_shard=samples_per_shard,
        strict=strict,
        workers=workers,
        overwrite=overwrite,
        read=ReadOptions(**read),
    )
    print_summary(manifest, dest)


def digits(dest: str) -> None:
    """Write scikit-learn's 1,797 handwritten digits (8x8, gray) as PNG files in class folders.

    Args:
        dest: folder that gets `train` and `test`, a folder for each digit in both.
    """
    write_digit_images(dest)
    console.print(f"digits in {dest}/train and {dest}/test")


def check(
    dest: str,
    *,
    channels: Literal[1, 3] = 3,
    size: int | None = None,
    orientation: Orientation | None = None,
    damaged: Damaged | None = None,
    workers: int = 0,
) -> None:
    """Verify a shard set: every byte, the index, and that every image can be trained on.

    Images are read as training reads them, with the options that the set was made with: the first frame of an animation
    counts, and transparent pixels become white. What is not wrong but worth knowing is counted.

    Args:
        dest: folder of the shard set.
        channels: of the images in training, `data.images.channels`.
        size: side of the images in training in pixels, `data.images.size`: also resize and crop to it.
        orientation: apply or ignore the EXIF orientation, other than the set says.
        damaged: refuse, or keep and count, images that a decoder complains about, other than the set says.
        workers: threads; 0 takes one for each core.
    """
    if size is not None and size < 1:
        raise ConfigError(f"size is {size}", hint="give at least 1")
    notes = NoteCounter()
    training = TrainingPixels(channels=channels, size=size)
    options = CheckOptions(training=training, orientation=orientation, damaged=damaged)
    problems = check_shards(dest, options, workers=workers, notes=notes)
    print_notes(notes.notes())
    if problems:
        for problem in problems:
            console.print(problem, style="yellow")
        hint = "make the set anew, or restore the files named"
        if any(f"({DAMAGE}: " in problem for problem in problems):
            hint += "; --damaged keep counts damaged images that can be decoded all the same"
        raise DataError(f"{len(problems)} problems in {dest}", hint=hint)
    console.print(f"{dest} is complete and sound")


def imagenet(
    source: str,
    dest: str,
    *,
    labels: str | None = None,
    numbering: str | None = None,
    samples_per_shard: int = 4096,
    strict: bool = False,
    workers: int = 0,
    overwrite: bool = False,
    **read: Any,
) -> None:
    """Make shards from ImageNet's official tar files (ILSVRC2012), without unpacking them.

    Of the training tar (a tar of class tars) or the validation tar (a tar of images). Classes are WNIDs (n01440764),
    numbered in their sorted order. Of an animation the first frame counts; transparent pixels become white.

    Args:
        source: ILSVRC2012_img_train.tar or ILSVRC2012_img_val.tar.
        dest: folder of the new shard set.
        labels: for the validation tar: a text file with a line for each image, in the order of the images' names, that
            begins with a WNID, or with a number from 1 as in ILSVRC2012_validation_ground_truth.txt.
        numbering: where LABELS are numbers: a text file with the WNID of each number in a line. The development kit's
            numbers (ILSVRC2012_ID in meta.mat) are not those of the sorted WNIDs.
        samples_per_shard: images in a shard.
        strict: refuse a source with images that cannot be read, instead of listing and counting them.
        workers: threads; 0 takes one for each core.
        overwrite: replace a finished shard set in DEST.
        **read: how images are read, and which are left out.
    """
    options = WriteOptions(
        samples_per_shard=samples_per_shard,
        strict=strict,
        workers=workers,
        overwrite=overwrite,
        read=ReadOptions(**read),
    )
    print_summary(write_imagenet_shards(source, dest, labels=labels, numbering=numbering, options=options), dest)


def jsonl(
    source: str,
    dest: str,
    *,
    samples_per_shard: int = 4096,
    strict: bool = False,
    workers: int = 0,
    overwrite: bool = False,
) -> None:
    """Make shards of episodes from a file of JSON lines, one object a line.

    Args:
        source: the file, UTF-8.
        dest: folder of the new shard set.
        samples_per_shard: episodes in a shard.
        strict: refuse a file with bad lines, instead of listing and counting them.
        workers: threads; 0 takes one for each core.
        overwrite: replace a finished shard set in DEST.
    """
    options = WriteOptions(samples_per_shard=samples_per_shard, strict=strict, workers=workers, overwrite=overwrite)
    print_summary(write_jsonl_shards(source, dest, options=options), dest)


def hf(
    source: str,
    dest: str,
    *,
    split: str | None = None,
    image: str | None = None,
    label: str | None = None,
    unconditional: bool = False,
    samples_per_shard: int = 4096,
    strict: bool = False,
    workers: int = 0,
    overwrite: bool = False,
    **read: Any,
) -> None:
    """Make shards from a Hugging Face `datasets` folder on disk: of images, or each row as an episode.

    Needs the extra `framework[hf]`. Of an animation the first frame counts; transparent pixels become white.

    Args:
        source: a folder that `save_to_disk` wrote.
        dest: folder of the new shard set.
        split: which dataset, where the folder holds several.
        image: the column of images; by default the only one. Without any, each row becomes a JSON object.
        label: the column of labels; by default the only one of class labels.
        unconditional: the images have no classes.
        samples_per_shard: samples in a shard.
        strict: refuse a source with samples that cannot be read, instead of listing and counting them.
        workers: threads; 0 takes one for each core.
        overwrite: replace a finished shard set in DEST.
        **read: how images are read, and which are left out.
    """
    options = WriteOptions(
        samples_per_shard=samples_per_shard,
        strict=strict,
        workers=workers,
        overwrite=overwrite,
        read=ReadOptions(**read),
    )
    manifest = write_hf_shards(
        source, dest, split=split, image=image, label=label, unconditional=unconditional, options=options
    )
    print_summary(manifest, dest)


def index(
    source: str,
    *,
    classes: str | None = None,
    label_key: str = "label",
    unconditional: bool = False,
    max_member_mib: int = 256,
    strict: bool = False,
    workers: int = 0,
    overwrite: bool = False,
    **read: Any,
) -> None:
    """Make an index and a manifest for WebDataset shards that others wrote: they become a shard set like ours.

    Images (jpg, png, webp, whatever Pillow reads) need their class in a `cls`, a `json` or a `txt` member of the same
    key, the name up to its first dot; samples of a `json` member alone are episodes. Of an animation the first frame
    counts; transparent pixels become white. Nothing but index.npy and manifest.json is written.

    Args:
        source: the folder of the .tar files.
        classes: a text file with the name of each class in a line, where labels are numbers.
        label_key: key of the label in `json` members beside images.
        unconditional: the images have no classes, whatever stands beside them.
        max_member_mib: refuse shards with a larger member.
        strict: refuse shards with samples that cannot be read, or whose keys have dots, instead of listing them.
        workers: threads; 0 takes one for each core.
        overwrite: replace the index and the manifest that are there.
        **read: how images are read, and which are left out.
    """
    options = IndexOptions(
        classes=_class_names(classes),
        label_key=label_key,
        unconditional=unconditional,
        max_member_bytes=max_member_mib << 20,
        strict=strict,
        workers=workers,
        overwrite=overwrite,
        read=ReadOptions(**read),
    )
    print_summary(index_shards(source, options), source)


def source(dest: str, member: str, *, cache: RemoteConfig = RemoteConfig()) -> None:
    """Say where a sample comes from: its path inside the source that the set was made of.

    Args:
        dest: the set's folder or URL.
        member: its member, such as 000000012.jpg, or its number in the set, as in `sample 12`.
        cache: for a URL, how its files are fetched.
    """
    found = find_source(dest, member, remote=cache)
    print(f"{visible(found.member)}\t{visible(found.path)}")


def _class_names(path: str | None) -> tuple[str, ...] | None:
    """The lines of a file of class names."""
    return None if path is None else tuple(read_lines(path, hint="give the name of each class in a line"))


def stats(dest: str, *, cache: RemoteConfig = RemoteConfig()) -> None:
    """Show what is in a shard set: classes, sizes, bytes, shards.

    Args:
        dest: its folder or URL.
        cache: for a URL, where and how its files are kept.
    """
    found = measure(ShardSet(dest, remote=cache))
    smallest, median, mean, largest = found.sample_bytes
    sums = Table("", "", show_header=False)
    sums.add_row("samples", f"{found.num_samples:,} {found.kind} in {len(found.shards):,} shards")
    sums.add_row("bytes", f"{found.num_bytes:,} ({decimal(found.num_bytes)})")
    sums.add_row("bytes of a sample", f"{smallest:,} to {largest:,}, median {median:,}, mean {mean:,}")
    sums.add_row("skipped", f"{found.num_skipped:,}")
    out = results()
    out.print(sums)
    for title, counts in (("class", found.classes), ("size", found.image_sizes), ("mode", found.image_modes)):
        if counts:
            out.print(_counts(title, counts))
    if found.notes:
        noticed = Table("noticed", "images", "such as")
        for note in found.notes:
            noticed.add_row(note.what, f"{note.count:,}", note.first)
        out.print(noticed)
    shards = Table("shard", "samples", "bytes", "classes")
    for shard in found.shards[:_NUM_LISTED]:
        shards.add_row(shard.name, f"{shard.num_samples:,}", f"{shard.num_bytes:,}", f"{shard.num_classes:,}")
    if len(found.shards) > _NUM_LISTED:
        shards.add_row(f"and {len(found.shards) - _NUM_LISTED:,} more")
    out.print(shards)


def peek(
    dest: str,
    *,
    num: int = 64,
    out: str = "peek.png",
    size: int = 128,
    cache: RemoteConfig = RemoteConfig(),
) -> None:
    """Look at a shard set: a contact sheet of images spread evenly over it, with their classes, or its first episodes.

    Images are shown as training sees them: of an animation the first frame, transparent pixels white.

    Args:
        dest: its folder or URL.
        num: number of samples.
        out: the PNG file to write.
        size: side of each image in pixels, at most its own; the middle of an image is shown.
        cache: for a URL, where and how its files are kept.
    """
    if num < 1 or size < 1:
        raise ConfigError(f"num {num}, size {size}", hint="use 1 or more")
    shards = ShardSet(dest, remote=cache)
    num = min(num, len(shards))
    if shards.manifest.kind == "episodes":
        for number in range(num):
            text = json.dumps(json.loads(shards.read(number)[0]), indent=2, ensure_ascii=False)
            print("\n".join(map(visible, text.split("\n"))))
        return
    check_outputs(out, inputs=[dest])
    save_contact_sheet(Path(out), shards, num=num, size=size)
    console.print(f"{num} images of {dest}, in its order row by row, in {out}")


def _counts(title: str, counts: dict[str, int]) -> Table:
    """The first counts, and what the others come to."""
    table = Table(title, "images")
    listed = list(counts.items())[:_NUM_LISTED]
    for name, number in listed:
        table.add_row(name, f"{number:,}")
    if len(counts) > len(listed):
        others = sum(counts.values()) - sum(number for _, number in listed)
        table.add_row(f"and {len(counts) - len(listed):,} more", f"{others:,}")
    return table
