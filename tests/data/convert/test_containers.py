"""A container is known by its bytes, whatever its name is; what cannot be read says so."""

import bz2
import gzip
import lzma
from pathlib import Path

import pytest

from framework.core.errors import DataError
from framework.data.convert.containers import open_container
from framework.testing.containers import CONTAINER_KINDS, make_container


def paths(source: Path) -> list[str]:
    with open_container(source) as container:
        return sorted(container.contents(folder="", follow_links=False).files)


@pytest.mark.parametrize("kind", CONTAINER_KINDS[1:])
def test_a_name_does_not_count(tmp_path: Path, kind):
    source = make_container(tmp_path, {"a/1.png": b"1"}, kind)
    assert paths(source) == ["a/1.png"]
    assert paths(source.rename(tmp_path / "download")) == ["a/1.png"]


def test_a_zip_behind_a_program(tmp_path: Path):
    source = make_container(tmp_path, {"a/1.png": b"1"}, "zip")
    source.write_bytes(b"#!/bin/sh\nexec unzip\n" + source.read_bytes())
    assert paths(source) == ["a/1.png"]


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress, gzip.compress])
def test_packed_archives_are_known(tmp_path: Path, pack):
    source = make_container(tmp_path, {"a/1.png": b"1"}, "tar")
    source.write_bytes(pack(source.read_bytes()))
    assert paths(source) == ["a/1.png"]


@pytest.mark.parametrize(("magic", "name"), [(b"\x28\xb5\x2f\xfd", "zstd"), (b"7z\xbc\xaf", "7z"), (b"Rar!", "rar")])
def test_other_compressions_are_named(tmp_path: Path, magic: bytes, name: str):
    (tmp_path / "images").write_bytes(magic + bytes(600))
    with pytest.raises(DataError, match=f"is packed with {name}, which is not read: give a folder"):
        paths(tmp_path / "images")


def test_what_is_no_container(tmp_path: Path):
    with pytest.raises(DataError, match=r"no images at .*missing: it does not exist: give a folder .*, a .zip, a .tar"):
        paths(tmp_path / "missing")
    for data in (b"", b"something else", bytes(10240)):
        (tmp_path / "images.tar").write_bytes(data)
        with pytest.raises(DataError, match=r"images.tar is neither a folder, nor a zip, nor a tar archive"):
            paths(tmp_path / "images.tar")
    with pytest.raises(DataError, match="/dev/null is neither a folder nor a file"):
        paths(Path("/dev/null"))


@pytest.mark.parametrize("kind", CONTAINER_KINDS[1:])
def test_an_archive_that_was_cut(tmp_path: Path, kind):
    source = make_container(tmp_path, {f"a/{number}.png": bytes(range(256)) * 9 for number in range(9)}, kind)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    with pytest.raises(DataError, match=r"cannot be read|neither a folder, nor a zip|damaged zip"):
        paths(source)


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress, gzip.compress])
def test_a_packed_file_of_something_else(tmp_path: Path, pack):
    (tmp_path / "a.tar.gz").write_bytes(pack(b"not a tar archive" * 200))
    with pytest.raises(DataError, match=r"a.tar.gz cannot be read"):
        paths(tmp_path / "a.tar.gz")
