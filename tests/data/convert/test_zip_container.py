"""Zip archives as others make them: names twice, links, backslashes, bombs."""

import stat
import warnings
import zipfile
from pathlib import Path

import pytest

from framework.core.errors import DataError
from framework.data.convert.contents import Contents
from framework.data.convert.zip_container import ZipContainer


def make(path: Path, *members: tuple[zipfile.ZipInfo | str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as archive:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, data in members:
            archive.writestr(name, data)
    return path


def info(name: str, *, mode: int = 0o644, system: int = 3) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = system, mode << 16
    return member


def listed(path: Path, *, follow_links: bool = False) -> tuple[Contents, dict[str, bytes]]:
    container = ZipContainer(path)
    found = container.contents(folder="", follow_links=follow_links)
    read = {each: container.read(file) for each, file in found.files.items()}
    container.close()
    return found, read


def test_a_name_twice(tmp_path: Path):
    """Both used to be stored with the bytes of the last one."""
    found, read = listed(make(tmp_path / "a.zip", ("c/1.png", b"old"), ("c/2.png", b"2"), ("c/1.png", b"new")))
    assert read == {"c/1.png": b"new", "c/2.png": b"2"}
    assert [(each.source, each.reason) for each in found.skipped] == [
        ("c/1.png", "another file of the same name follows in the archive")
    ]


def test_backslashes_of_windows(tmp_path: Path):
    members = [(info(name, system=0), b"1") for name in ("c\\1.png", "c\\d\\")]
    found, read = listed(make(tmp_path / "a.zip", *members, (info("c/x\\2.png"), b"2")))
    assert read == {"c/1.png": b"1", "c/x\\2.png": b"2"}
    assert found.folders == {"c/d"}


def test_links(tmp_path: Path):
    link = info("d/1.png", mode=stat.S_IFLNK | 0o777)
    path = make(tmp_path / "a.zip", ("c/1.png", b"1"), (link, b"../c/1.png"))
    assert [each.reason for each in listed(path)[0].skipped] == ["a link (--follow_links follows it)"]
    assert listed(path, follow_links=True)[1] == {"c/1.png": b"1", "d/1.png": b"1"}


def test_a_large_member_is_refused_before_it_is_read(tmp_path: Path):
    path = make(tmp_path / "a.zip", ("c/1.png", bytes(100)))
    container = ZipContainer(path)
    container._members[0].file_size = 3 << 30
    file = container.contents(folder="", follow_links=False).files["c/1.png"]
    assert file.size == 3 << 30
    with pytest.raises(ValueError, match="3,221,225,472 bytes, more than 268,435,456"):
        container.read(file)
    container.close()


def test_a_member_that_is_larger_than_it_says(tmp_path: Path):
    """What is read is what the header says, however much the data would become."""
    path = make(tmp_path / "a.zip", ("c/1.png", bytes(5000)))
    data = path.read_bytes()
    path.write_bytes(data.replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little")))
    container = ZipContainer(path)
    file = container.contents(folder="", follow_links=False).files["c/1.png"]
    assert file.size == 50
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        container.read(file)
    container.close()


@pytest.mark.parametrize(("method", "name"), [(zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "lzma")])
def test_compressions_without_a_bound(tmp_path: Path, method: int, name: str):
    found, _ = listed(make(tmp_path / "a.zip", ("c/1.png", b"1"), method=method))
    assert [each.reason for each in found.skipped] == [
        f"compressed with {name}, which cannot be bounded: pack the zip with deflate"
    ]


def test_an_encrypted_member(tmp_path: Path):
    path = make(tmp_path / "a.zip", ("c/1.png", b"1"))
    container = ZipContainer(path)
    container._members[0].flag_bits |= 1
    assert [each.reason for each in container.contents(folder="", follow_links=False).skipped] == ["encrypted"]
    container.close()


def test_a_damaged_archive(tmp_path: Path):
    path = make(tmp_path / "a.zip", ("c/1.png", b"1"))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"a.zip is a damaged zip archive"):
        ZipContainer(path)
