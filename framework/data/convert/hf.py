"""A Hugging Face `datasets` folder on disk (`save_to_disk`) to a shard set."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from framework.core.errors import ConfigError, DataError
from framework.data.convert.contents import identity_of, read_bounded
from framework.data.shards.manifest import UNCONDITIONAL, Manifest, Skipped
from framework.data.shards.writer import Listing, SourceFile, WriteOptions, write_listing


def write_hf_shards(
    source: str | Path,
    dest: str | Path,
    *,
    split: str | None = None,
    image: str | None = None,
    label: str | None = None,
    unconditional: bool = False,
    options: WriteOptions = WriteOptions(),
) -> Manifest:
    """Writes the rows of a dataset as images, where a column holds some, or as episodes: each row a JSON object.

    Image files are kept as the bytes that they are. Classes are the names of the label column's feature, or else its
    sorted values; rows without a label (none, or -1) are skipped.

    Args:
        source: a folder that `datasets.Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote.
        dest: folder of the shard set; made if it is missing.
        split: which dataset, where the folder holds several.
        image: the column of images; by default the only one.
        label: the column of labels; by default the only one of class labels.
        unconditional: the images have no classes.
        options: how the set is written.

    Raises:
        ConfigError: `datasets` is not installed; a split or column that is not there, or not the only one.
        DataError: no such folder, or what `write_listing` raises.
    """
    rows = _load(Path(source), split)
    images = [name for name, feature in rows.features.items() if type(feature).__name__ == "Image"]
    identity = f"{split} {image} {label} {identity_of(Path(source))}"
    if image is None and not images:
        files = tuple(SourceFile(path=f"row {number}", label=None) for number in range(len(rows)))
        listing = Listing(classes=(), files=files, skipped=(), identity=identity)
        return write_listing(Path(dest), listing, _row_reader(rows), kind="episodes", options=options)
    image = _column(image, images, what="image")
    labels = [name for name, feature in rows.features.items() if type(feature).__name__ == "ClassLabel"]
    if label is not None and label not in rows.features:
        raise ConfigError(f"there is no column {label!r}", hint=f"use one of {', '.join(rows.features)}")
    if unconditional:
        if label is not None:
            raise ConfigError("unconditional data have no labels", hint="leave out --label or --unconditional")
        files = tuple(SourceFile(path=f"row {number}", label=0, offset=number) for number in range(len(rows)))
        listing = Listing(classes=(UNCONDITIONAL,), files=files, skipped=(), unconditional=True)
    else:
        listing = _image_listing(rows, label or _column(None, labels, what="label"))
    listing = replace(listing, identity=identity, empty_classes=True)
    return write_listing(Path(dest), listing, _image_reader(rows, image), kind="images", options=options)


def _load(source: Path, split: str | None) -> Any:
    """The dataset of a folder."""
    try:
        import datasets
    except ImportError:
        hint = 'install it with: pip install "framework[hf]"'
        raise ConfigError("the package `datasets` is not installed", hint=hint) from None
    if not source.is_dir():
        raise DataError(f"no dataset at {source}: it is not a folder", hint="give a folder that save_to_disk wrote")
    try:
        loaded = datasets.load_from_disk(str(source))
    except Exception as error:  # pyarrow's, json's and its own
        raise DataError(f"{source} cannot be read ({error})", hint="give a folder that save_to_disk wrote") from error
    if isinstance(loaded, datasets.Dataset):
        if split is not None:
            raise ConfigError(f"{source} is one dataset without splits", hint="leave out --split")
        return loaded
    if split not in loaded:
        problem = f"{source} holds the splits {', '.join(map(str, loaded))}"
        raise ConfigError(problem, hint="choose one of them with --split")
    return loaded[split]


def _column(given: str | None, found: list[str], *, what: str) -> str:
    if given is None and len(found) == 1:
        return found[0]
    if given in found:
        return given
    problem = f"the {what} columns are {', '.join(found) or 'none'}"
    without = ", or use --unconditional for images without classes" if what == "label" else ""
    raise ConfigError(problem, hint=f"name the column with --{what}{without}")


def _image_listing(rows: Any, label: str) -> Listing:
    """The rows with a label, in their order."""
    values = list(rows[label])
    names: list[str] | None = getattr(rows.features[label], "names", None)
    is_missing = [value is None or value == -1 for value in values]
    if names is None:
        kept = {value for value, missing in zip(values, is_missing, strict=True) if not missing}
        if not all(isinstance(value, int | str) for value in kept) or len({type(value) for value in kept}) > 1:
            raise ConfigError(
                f"column {label!r} holds no labels", hint="name a column of numbers or names with --label"
            )
        ordered = sorted(kept)
        numbers = {value: number for number, value in enumerate(ordered)}
        names = [str(value) for value in ordered]
    else:
        numbers = {number: number for number in range(len(names))}
    paths = [f"row {number}" for number in range(len(values))]
    files = tuple(
        SourceFile(path=path, label=numbers[value], offset=number)
        for number, (path, value, missing) in enumerate(zip(paths, values, is_missing, strict=True))
        if not missing
    )
    skipped = tuple(
        Skipped(source=path, reason="it has no label")
        for path, missing in zip(paths, is_missing, strict=True)
        if missing
    )
    return Listing(classes=tuple(names), files=files, skipped=skipped)


def _image_reader(rows: Any, column: str) -> Callable[[SourceFile], bytes]:
    from datasets import Image

    encoded = rows.select_columns([column]).cast_column(column, Image(decode=False))

    def read(file: SourceFile) -> bytes:
        value = encoded[file.offset][column]
        if value is None:
            raise ValueError("there is no image")
        return value["bytes"] if value["bytes"] is not None else read_bounded(Path(value["path"]))

    return read


def _row_reader(rows: Any) -> Callable[[SourceFile], bytes]:
    def read(file: SourceFile) -> bytes:
        row = rows[int(file.path.removeprefix("row "))]
        return json.dumps(row, ensure_ascii=False, sort_keys=True, allow_nan=False).encode()

    return read
