"""Files of labels as spreadsheets and programs write them; a line that cannot be read is named."""

from pathlib import Path

import pytest

from framework.core.errors import ConfigError, DataError
from framework.data.convert.label_file import LabelColumns, read_label_file


def rows(path: Path, data: str | bytes, *, columns: LabelColumns = LabelColumns()) -> list[tuple[int, str, str]]:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return list(read_label_file(path, columns).rows)


def test_csv(tmp_path: Path):
    text = '\ufeffImage, Note ,Label\r\na.png,"two\r\nlines",cat\r\n\r\nb.png,"x, y", dog \r\nc.png,,\r\n'
    assert rows(tmp_path / "a.csv", text) == [(2, "a.png", "cat"), (5, "b.png", "dog"), (6, "c.png", "")]
    assert read_label_file(tmp_path / "a.csv", LabelColumns()).path_column == "Image"


def test_json_lines(tmp_path: Path):
    text = '{"file_name": "a.png", "label": 3}\n\n{"file_name": 7, "label": "x"}\n{"file_name": "b", "label": null}\n'
    text += '{"file_name": "c", "label": 4.0}\n{"file_name": "d"}'
    assert rows(tmp_path / "a.jsonl", text) == [
        (1, "a.png", "3"),
        (3, "7", "x"),
        (4, "b", ""),
        (5, "c", "4"),
        (6, "d", ""),
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "\ufeff\r\n\r\nfile;label\r\na,b.png;cat\r\n"),
        ("a.csv", "sep=;\r\nfile;label\r\na,b.png;cat\r\n"),
        ("a.json", '\n{"file": "a,b.png", "label": "cat"}\n'),
    ],
    ids=["empty lines first", "Excel names the delimiter", "JSON lines by another name"],
)
def test_what_comes_before_the_heading(tmp_path: Path, name: str, text: str):
    assert [row[1:] for row in rows(tmp_path / name, text)] == [("a,b.png", "cat")]


def test_columns_by_name(tmp_path: Path):
    columns = LabelColumns(path="where", label="kind")
    assert rows(tmp_path / "a.csv", "path,where,label,kind\n1,2,3,4\n", columns=columns) == [(2, "2", "4")]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"", "has no line with a label"),
        ("a.csv", b"path,label\n", "has no line with a label"),
        ("a.csv", b"path,label\n\xff,a\n", r"a.csv is not UTF-8 .*in line 2"),
        ("a.csv", b"path,label\na,b,c\n", "line 2 of .* has 3 values for 2 columns: put values with a comma"),
        ("a.csv", b"path,path\na,b\n", "two columns of .* have the same name"),
        ("a.csv", b"path,label\n,b\n", "line 2 of .* names no image in 'path'"),
        ("a.csv", b'path,label\n"a,b\n', r"a.csv cannot be read \(unexpected end of data\)"),
        ("a.csv", b"path,label\na,-1\n", "the label in line 2 of .* is '-1' .*: give numbers from 0"),
        ("a.jsonl", b'{"path": "a", "label": 1}\n{\n', "line 2 of .* cannot be read"),
        ("a.jsonl", b'{"path": "a", "label": [1, 2]}\n', r"the label in line 1 of .* is \[1, 2\] .*: give one class"),
        ("a.jsonl", b'{"path": "a", "label": true}\n', "is true"),
        ("a.jsonl", b'{"path": "a", "label": "\\ud83d"}\n', r"is '\\ud83d' .* names that UTF-8 can hold"),
        ("a.jsonl", b"1\n", "line 1 of .* cannot be read"),
        ("a.json", b' [{"path": "a"}]', "a.json is a JSON list: give JSON lines"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, data: bytes, message: str):
    with pytest.raises(DataError, match=message):
        rows(tmp_path / name, data)


def test_missing(tmp_path: Path):
    with pytest.raises(DataError, match="missing cannot be read"):
        read_label_file(tmp_path / "missing", LabelColumns())
    with pytest.raises(ConfigError, match="no column 'x': use one of path, label"):
        rows(tmp_path / "a.csv", "path,label\na,b\n", columns=LabelColumns(path="x"))
