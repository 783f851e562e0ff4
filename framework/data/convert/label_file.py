"""Files of labels: CSV with a heading, or JSON lines, with the path of each image and its class."""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from framework.core.errors import ConfigError, DataError
from framework.core.serialization import parse_object
from framework.core.text_files import read_text
from framework.data.archives.names import printable

# As those who publish images call them; the first that is there counts.
_PATHS = ("file_name", "filename", "file", "path", "image", "image_path", "image_id", "img", "id", "name")
_LABELS = ("label", "class", "category", "target", "class_name", "label_name", "y", "breed", "species")
# The first line that Excel writes to itself.
_EXCEL_DELIMITER = re.compile("sep=([,;\t])")
_HINT = "give a CSV file with a heading, or JSON lines, in UTF-8"


@dataclass(frozen=True, kw_only=True)
class LabelColumns:
    """Columns of a CSV file, or keys of the objects of JSON lines; by default those with the usual names.

    Attributes:
        path: the image's path from the source's folder on, with or without its suffix.
        label: its class: a name, or a number from 0.
    """

    path: str | None = None
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class LabelFile:
    """What a file of labels says.

    Attributes:
        path_column: the column or key of the paths.
        rows: line, path and label of each image; the label is empty where there is none.
    """

    path_column: str
    rows: tuple[tuple[int, str, str], ...]


def read_label_file(path: Path, columns: LabelColumns) -> LabelFile:
    """Reads a file of labels: JSON lines where its name ends in `.jsonl` or `.ndjson` or it begins so, CSV otherwise.

    Raises:
        DataError: no such file, not UTF-8, a line that cannot be read, or a label that is neither text nor a number.
        ConfigError: a column that is not there, or none with a usual name.
    """
    text = read_text(path, hint=_HINT)
    if text.lstrip().startswith("["):
        raise DataError(f"{path} is a JSON list", hint="give JSON lines, an object a line, or a CSV file")
    # Some call them .json.
    is_json = path.suffix.lower() in (".jsonl", ".ndjson") or text.lstrip().startswith("{")
    try:
        records = list(_json_records(text, path) if is_json else _csv_records(text, path))
    except csv.Error as error:
        raise DataError(f"{path} cannot be read ({error})", hint=_HINT) from None
    if not records:
        raise DataError(f"{path} has no line with a label", hint=_HINT)
    known = list(dict.fromkeys(key for _, record in records for key in record))
    path_column = _column(columns.path, _PATHS, known, path, what="path")
    label_column = _column(columns.label, _LABELS, known, path, what="label")
    rows: list[tuple[int, str, str]] = []
    for line, record in records:
        name = record.get(path_column)
        if isinstance(name, bool) or not isinstance(name, int | str) or not str(name).strip():
            problem = f"line {line} of {path} names no image in {path_column!r} ({json.dumps(name)})"
            raise DataError(problem, hint="give the path of an image in each line")
        rows.append((line, str(name).strip(), _label(record.get(label_column), line, path, label_column)))
    return LabelFile(path_column=path_column, rows=tuple(rows))


def _label(value: object, line: int, path: Path, column: str) -> str:
    """A label as text; empty where there is none."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        problem = f"the label in line {line} of {path} is {json.dumps(value)} ({column!r})"
        raise DataError(problem, hint="give one class for each image, a name or a number")
    text = str(value).strip()
    if printable(text) != text or (text.startswith("-") and text[1:].isdecimal()):
        problem = f"the label in line {line} of {path} is '{printable(text)}' ({column!r})"
        raise DataError(problem, hint="give numbers from 0, or names that UTF-8 can hold")
    return text


def _csv_records(text: str, path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    lines = iter(text.split("\n"))
    heading = next((line for line in lines if line.strip()), "")
    named = _EXCEL_DELIMITER.fullmatch(heading.strip("\r"))
    # Tabs and semicolons are what spreadsheets write; the heading shows which.
    delimiter = max(",\t;", key=heading.count) if named is None else named[1]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] | None = None
    while True:
        # A quoted value may go on in the next lines: a row's line is its first.
        line = reader.line_num + 1
        row = next(reader, None)
        if row is None:
            return
        if not any(value.strip() for value in row):
            continue
        if names is None and named is not None:
            named = None
            continue
        if names is None:
            names = [name.strip() for name in row]
            if len(set(names)) < len(names):
                raise DataError(f"two columns of {path} have the same name ({', '.join(names)})", hint=_HINT)
            continue
        if len(row) != len(names):
            problem = f"line {line} of {path} has {len(row)} values for {len(names)} columns"
            raise DataError(problem, hint='put values with a comma in them into quotes ("a, b")')
        yield line, dict(zip(names, row, strict=True))


def _json_records(text: str, path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    for line, each in enumerate(text.split("\n"), 1):
        if not each.strip():
            continue
        try:
            yield line, parse_object(each)
        except ValueError as error:
            raise DataError(f"line {line} of {path} cannot be read ({error})", hint=_HINT) from None


def _column(given: str | None, usual: tuple[str, ...], known: list[str], path: Path, *, what: str) -> str:
    """The name of a column: the one that was given, or the first usual one, in capitals or not."""
    if given is not None:
        if given in known:
            return given
        raise ConfigError(f"{path} has no column {given!r}", hint=f"use one of {', '.join(known)}")
    lowered = {name.lower(): name for name in reversed(known)}
    for name in usual:
        if name in lowered:
            return lowered[name]
    problem = f"no column of {path} is called like a {what} (it has {', '.join(known)})"
    raise ConfigError(problem, hint=f"name it with --{what}_column; the first line of a CSV file is its heading")
