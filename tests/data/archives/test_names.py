"""Names from outside: text can hold them, and none leads out of its archive."""

import os

import pytest

from framework.data.archives.names import inside, printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cat/1.png", "cat/1.png"),
        ("né", "né"),
        (os.fsdecode(b"caf\xe9.png"), r"caf\xe9.png"),
        (os.fsdecode("né".encode() + b"\xff"), r"né\xff"),
        ("half \ud83d", r"half \ud83d"),
    ],
)
def test_any_name_can_be_written(name: str, shown: str):
    assert printable(name) == shown
    shown.encode()


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("./a/b.png", "a/b.png"),
        ("././a//b.png", "a/b.png"),
        ("a/./b/", "a/b"),
        (".", ""),
        ("..a/b", "..a/b"),
        ("../a", None),
        ("a/../../b", None),
        ("a/../b", None),
        ("/etc/passwd", None),
    ],
)
def test_paths_stay_inside(name: str, path: str | None):
    assert inside(name) == path
