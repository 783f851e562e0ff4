"""Text that others wrote: what is read, what is refused, and that both are the same everywhere."""

from itertools import pairwise
from pathlib import Path

import pytest

from framework.core.errors import ConfigError, DataError
from framework.core.text_files import (
    BadLine,
    decode_text,
    half_character_in,
    numbered_lines,
    parse_json,
    parse_json_at,
    parse_yaml,
    read_json_lines,
    read_lines,
    read_text,
    read_yaml,
    refuse_half_characters,
)

MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"caf\xe9", r"not UTF-8 \(byte 0xe9\)"),
        (b"a\nb\ncaf\xe9\n", r"not UTF-8 \(byte 0xe9 in line 3\)"),
        ("a\nb".encode("utf-16"), "UTF-16, not UTF-8"),
        ("a\nb".encode("utf-16-le"), "zero bytes"),
        (b"\xed\xa0\xbd", "not UTF-8"),
    ],
)
def test_another_encoding(tmp_path: Path, data: bytes, words: str):
    with pytest.raises(ValueError, match=words):
        decode_text(data)
    path = tmp_path / "file"
    path.write_bytes(data)
    for read in (read_text, read_lines):
        with pytest.raises(DataError, match=f"file is .*{words}.*: save it as UTF-8"):
            read(path)
    with pytest.raises(ConfigError, match=words):
        read_yaml(path)


def test_a_file_that_is_missing(tmp_path: Path):
    for read in (read_text, read_lines, lambda path: list(numbered_lines(path))):
        with pytest.raises(DataError, match="none cannot be read"):
            read(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"cannot be read .*: give a recipe"):
        read_text(tmp_path, hint="give a recipe", error=ConfigError)


def test_lines_that_stand_for_their_numbers(tmp_path: Path):
    path = tmp_path / "classes.txt"
    for data in (b"cat\ndog\n\n", MARK + b"cat\r\ndog\r\n \r\n", b"cat\rdog", b" cat \ndog"):
        path.write_bytes(data)
        assert read_lines(path) == ["cat", "dog"]
    path.write_bytes("a\u2028b\nc\x0cd".encode())
    assert read_lines(path) == ["a\u2028b", "c\x0cd"]
    path.write_bytes(b"cat\n\ndog\n")
    with pytest.raises(DataError, match=r"classes.txt, line 2 is empty: name every class"):
        read_lines(path, hint="name every class")
    path.write_bytes(b"\n\n")
    with pytest.raises(DataError, match=r"is empty: "):
        read_lines(path)


def test_json_lines(tmp_path: Path):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(MARK + b'{"a": 1}\r\n\n  \n{"b": "\xe2\x80\xa8"}\n{"c": "\xe9"}\n[\n7')
    parsed = [{"a": 1}, {"b": "\u2028"}, 7]

    def parse(line: str, number: int) -> object:
        return parse_json(line)

    records, bad = read_json_lines(path, parse, skip_bad_lines=True)
    assert records == parsed
    assert [(line.number, line.problem[:9]) for line in bad] == [(5, "not UTF-8"), (6, "not JSON ")]
    assert bad[0] == BadLine(number=5, problem="not UTF-8 (byte 0xe9)")
    with pytest.raises(DataError, match=r"2 malformed lines, the first is line 5 \(not UTF-8"):
        read_json_lines(path, parse)
    path.write_bytes('{"a": 1}\n'.encode("utf-16"))
    with pytest.raises(DataError, match="UTF-16"):
        read_json_lines(path, parse, skip_bad_lines=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("{'a': 1}", "not JSON"),
        ('{"a": 1} x', "more after its end"),
        ('{"a": 1, "a": 2}', "two values of 'a'"),
        ("[" * 100_000, "nested too deeply"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_what_is_not_json(text: str | bytes, words: str):
    with pytest.raises(ValueError, match=words):
        parse_json(text)


def test_json():
    assert parse_json(MARK + b' {"a": "\\ud83d\\ude00", "a": "\\ud83d\\ude00"} \n') == {"a": "\U0001f600"}
    assert parse_json_at('x {"a": 1}; y', 2) == ({"a": 1}, 10)


def test_half_of_a_character():
    value = {"user": "x \ud83d", "more": [{"b": ["\udc00"]}]}
    assert half_character_in({"user": "x \U0001f600", "n": [1, None]}) is None
    assert half_character_in("\ude00") == "half of a character (\\ude00) at place 0"
    assert half_character_in(value["more"]) == "half of a character (\\udc00) at place 0 of [0].b[0]"
    assert "the key" in (half_character_in({"\ud83d": 1}) or "")
    with pytest.raises(ValueError, match=r"half of a character .* of user|of more"):
        refuse_half_characters(value)
    deep: list[object] = []
    for _ in range(20_000):
        deep = [deep]
    assert half_character_in(deep) is None


def test_yaml(tmp_path: Path):
    path = tmp_path / "graph.yaml"
    path.write_bytes(MARK + b'a: "\\ud83d\\ude00"\r\nb: \xc3\xa9\r\n')
    assert read_yaml(path) == {"a": "\U0001f600", "b": "é"}
    merged = "root: {a: &a {x: 1}, outer: {b: &b {<<: *a, x: 2}}, c: {<<: *b}}"
    assert parse_yaml(merged, "text")["root"]["c"] == {"x": 2}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3", r"text cannot be read .line 3: the key 'a' stands twice"),
        ("a: 1\nb: [", r"text cannot be read .line 2: .*expected"),
        ('a:\n  "\\ud83d"', r"text cannot be read .line 2: half of a character"),
        ("a: \x01", r"text cannot be read .line 1: the sign .*x01 is none of a text"),
        ("[" * 5000, "nested too deeply"),
        ("!!python/object:os.system x", "could not determine a constructor"),
    ],
)
def test_what_is_not_yaml(text: str, words: str):
    with pytest.raises(ConfigError, match=words):
        parse_yaml(text, "text")


def test_aliases_that_have_no_end():
    for text in ("x: &a [*a]", "x: &a {b: {c: *a}}"):
        with pytest.raises(ConfigError, match=r"line 1: the alias 'a' stands in what it stands for"):
            parse_yaml(text, "r.yaml")
    assert parse_yaml("x: &a [1]\ny: [*a, *a]", "r.yaml") == {"x": [1], "y": [[1], [1]]}


def test_aliases_of_aliases_that_stand_for_billions():
    lines = [
        "a: &a [1, 1]",
        *(f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in pairwise("abcdefghij")),
    ]
    with pytest.raises(ConfigError, match="aliases stand for more than 1,000,000 values"):
        parse_yaml("\n".join(lines), "r.yaml")
