"""What is in an archive: the last of two names counts, and links stand for what they point at in it."""

from pathlib import Path

import pytest

from framework.data.convert import contents as module
from framework.data.convert.contents import ArchiveEntry, Contents, arrange_archive, as_prefix, read_bounded
from framework.data.shards.writer import SourceFile


def file(name: str, offset: int = 0) -> ArchiveEntry:
    return ArchiveEntry(name=name, file=SourceFile(path=name, label=None, offset=offset))


def arranged(*entries: ArchiveEntry, follow_links: bool = True, folder: str = "") -> Contents:
    return arrange_archive(entries, ["./made/"], identity="x", folder=folder, follow_links=follow_links)


def offsets(contents: Contents) -> dict[str, int]:
    return {path: file.offset for path, file in contents.files.items()}


def reasons(contents: Contents) -> dict[str, str]:
    return {each.source: each.reason for each in contents.skipped}


def test_the_last_of_two_names_counts():
    found = arranged(file("a/1.png", 1), file("a/2.png", 2), file("./a//1.png", 3))
    assert offsets(found) == {"a/1.png": 3, "a/2.png": 2}
    assert reasons(found) == {"a/1.png": "another file of the same name follows in the archive"}
    assert found.folders == {"made"}


def test_nothing_leaves_the_archive():
    found = arranged(file("../1.png"), file("/2.png"), file("a/../../3.png"), file("a/4.png"))
    assert list(found.files) == ["a/4.png"]
    assert set(reasons(found).values()) == {"its path leads out of the archive"}


def test_links():
    entries = [
        file("a/1.png", 1),
        file("a/deep/2.png", 2),
        ArchiveEntry(name="b/one.png", target="../a/./1.png"),
        ArchiveEntry(name="c", target="a"),
        ArchiveEntry(name="d/hard.png", target="./a/1.png", is_hard=True),
        ArchiveEntry(name="d/lost.png", target="../a/9.png"),
        ArchiveEntry(name="d/out.png", target="../../etc/passwd"),
        ArchiveEntry(name="d/root.png", target="/etc/passwd"),
        ArchiveEntry(name="a/deep/loop", target="../../a"),
    ]
    found = arranged(*entries)
    assert offsets(found) == {
        "a/1.png": 1,
        "a/deep/2.png": 2,
        "b/one.png": 1,
        "c/1.png": 1,
        "c/deep/2.png": 2,
        "d/hard.png": 1,
    }
    assert reasons(found) == {
        "d/lost.png": "a link to '../a/9.png', which is not there",
        "d/out.png": "a link to '../../etc/passwd', outside of the archive",
        "d/root.png": "a link to '/etc/passwd', outside of the archive",
        "a/deep/loop": "a link to '../../a', which is not there",
    }
    without = arranged(*entries, follow_links=False)
    assert set(without.files) == {"a/1.png", "a/deep/2.png", "d/hard.png"}
    assert reasons(without)["c"] == "a link (--follow_links follows it)"


@pytest.mark.parametrize(("folder", "prefix"), [("", ""), (".", ""), ("./a//b/", "a/b/"), ("/a", "a/")])
def test_prefixes(folder: str, prefix: str):
    assert as_prefix(folder) == prefix


def test_only_a_folder_counts():
    found = arranged(file("a/1.png"), file("ab/1.png"), ArchiveEntry(name="a/2.png", problem="odd"), folder="a")
    assert (list(found.files), reasons(found), found.folders) == (["a/1.png"], {"a/2.png": "odd"}, frozenset())


def test_a_large_file_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_MEMBER_BYTES", 10)
    (tmp_path / "a").write_bytes(bytes(10))
    assert read_bounded(tmp_path / "a") == bytes(10)
    (tmp_path / "a").write_bytes(bytes(5000))
    with pytest.raises(ValueError, match="5,000 bytes, more than 10"):
        read_bounded(tmp_path / "a")


def test_links_to_links():
    entries = [
        file("a/1.png", 1),
        ArchiveEntry(name="a/2.png", target="a/1.png", is_hard=True),
        ArchiveEntry(name="a/3.png", target="a/2.png", is_hard=True),
        ArchiveEntry(name="a/4.png", target="5.png"),
        ArchiveEntry(name="a/5.png", target="../b/1.png"),
        ArchiveEntry(name="b", target="a"),
        ArchiveEntry(name="c", target="b"),
        ArchiveEntry(name="a/round.png", target="trip.png"),
        ArchiveEntry(name="a/trip.png", target="round.png"),
        ArchiveEntry(name="a/out.png", target="away.png"),
        ArchiveEntry(name="a/away.png", target="../../1.png"),
        file("d/e/1.png", 2),
        ArchiveEntry(name="a/d", target="../d"),
    ]
    found = arranged(*entries)
    ones = {f"{folder}/{number}.png": 1 for folder in "abc" for number in range(1, 6)}
    assert offsets(found) == {**ones, "d/e/1.png": 2, "a/d/e/1.png": 2}
    assert found.folders == {"made", "b", "c", "a/d"}
    assert reasons(found) == {
        "a/round.png": "a link that goes round in a circle",
        "a/trip.png": "a link that goes round in a circle",
        "a/out.png": "a link to '../../1.png', outside of the archive",
        "a/away.png": "a link to '../../1.png', outside of the archive",
        "b/d": "a link to a folder, in a folder that is itself linked",
        "c/d": "a link to a folder, in a folder that is itself linked",
    }
    # A hard link is a name of a file, whatever is asked for.
    assert offsets(arranged(*entries, follow_links=False)) == {
        "a/1.png": 1,
        "a/2.png": 1,
        "a/3.png": 1,
        "d/e/1.png": 2,
    }
