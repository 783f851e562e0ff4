"""A folder's files, with links followed where that was asked for, and nothing read that could hang or go round."""

import inspect
import os
import sys
from pathlib import Path

import pytest

from framework.data.convert.contents import Contents
from framework.data.convert.folder_container import FolderContainer


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name in ("source/a/1.png", "outside/x/2.png", "outside/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    source = tmp_path / "source"
    (source / "a" / "inside.png").symlink_to("1.png")
    (source / "a" / "out.png").symlink_to(tmp_path / "outside" / "3.png")
    (source / "a" / "lost.png").symlink_to("nowhere.png")
    (source / "b").symlink_to(tmp_path / "outside" / "x")
    (source / "a" / "loop").symlink_to(source)
    os.mkfifo(source / "a" / "pipe.png")
    return source


def contents(source: Path, *, folder: str = "", follow_links: bool) -> Contents:
    return FolderContainer(source).contents(folder=folder, follow_links=follow_links)


def reasons(found: Contents) -> dict[str, str]:
    return {each.source: each.reason for each in found.skipped}


def test_links_are_named(source: Path):
    found = contents(source, follow_links=False)
    assert sorted(found.files) == ["a/1.png", "a/inside.png"]
    assert found.folders == {"a"}
    assert reasons(found) == {
        "a/lost.png": "a link to nothing",
        "a/loop": "a link to a folder (--follow_links follows it)",
        "a/out.png": "a link that leaves the source (--follow_links follows it)",
        "a/pipe.png": "not a regular file",
        "b": "a link to a folder (--follow_links follows it)",
    }


def test_links_are_followed_on_request(source: Path):
    found = contents(source, follow_links=True)
    assert sorted(found.files) == ["a/1.png", "a/inside.png", "a/out.png", "b/2.png"]
    assert found.folders == {"a", "b"}
    assert reasons(found) == {
        "a/lost.png": "a link to nothing",
        "a/loop": "a link to a folder that it is in",
        "a/pipe.png": "not a regular file",
    }
    container = FolderContainer(source)
    assert [container.read(found.files[path]) for path in ("a/out.png", "b/2.png")] == [
        b"outside/3.png",
        b"outside/x/2.png",
    ]


def test_a_folder_that_was_named_may_be_a_link(source: Path):
    assert list(contents(source, folder="b", follow_links=False).files) == ["b/2.png"]
    assert contents(source, folder="c", follow_links=False).files == {}


def test_files_are_known_again_by_size_and_time(source: Path):
    before = contents(source, follow_links=False).files["a/1.png"]
    assert before == contents(source, follow_links=False).files["a/1.png"]
    os.utime(source / "a" / "1.png", ns=(1, before.stamp + 1))
    assert contents(source, follow_links=False).files["a/1.png"] != before


@pytest.mark.parametrize("follow_links", [False, True])
def test_folders_may_be_nested_deeper_than_calls(source: Path, follow_links: bool):
    for name in ("a/loop", "b"):
        (source / name).unlink()
    deepest = source / "c"
    for _ in range(120):
        deepest /= "d"
    deepest.mkdir(parents=True)
    (deepest / "1.png").write_bytes(b"1")
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(len(inspect.stack()) + 60)
        found = contents(source, follow_links=follow_links)
    finally:
        sys.setrecursionlimit(limit)
    assert str((deepest / "1.png").relative_to(source)) in found.files
