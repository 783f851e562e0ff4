"""Releases: folders, zips, lists, and what is wrong with them."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from framework.core.errors import DataError
from framework.gbc.environments.multiwoz.dataset import release
from framework.gbc.environments.multiwoz.dataset.release import read_release, read_tables


def zipped(folder: Path, *, root: str, **more: str) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"{root}{file.name}")
        for name, text in more.items():
            archive.writestr(name, text)
    return path


def test_folder_and_zip_read_alike(write_release: Callable[..., Path]):
    folder = write_release(dialogue_acts=json.dumps({"MUL0001": {"1": {}}}))
    found = read_release(folder)
    assert found.splits() == {"MUL0001.json": "train", "SNG0002.json": "validation", "SNG0003.json": "test"}
    assert found.acts == {"MUL0001": {"1": {}}}
    assert found.missing() == ()
    assert read_release(folder.parent) == found  # one folder further up
    for root in ("", "MULTIWOZ2.4/", "a/b/"):
        path = zipped(folder, root=root, **{"__MACOSX/data.json": ""})
        assert read_release(path) == found
        assert read_tables(path) == read_tables(folder)


def test_lists_as_text_or_json(write_release: Callable[..., Path]):
    folder = write_release(valListFile=None, testListFile='["SNG0003", "SNG9999.json"]')
    (folder / "valListFile.txt").write_text("SNG0002\r\n\r\n")
    found = read_release(folder)
    assert found.lists == {"validation": ("SNG0002.json",), "test": ("SNG0003.json", "SNG9999.json")}
    assert found.missing() == ("SNG9999.json",)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"data": None}, "data.json is in 0 folders"),
        ({"data": "{"}, "data.json is not JSON"),
        ({"data": "[]"}, "no JSON object of dialogues"),
        ({"valListFile": None}, "no valListFile.json beside"),
        ({"valListFile": "SNG0003.json"}, "SNG0003.json is in the lists of validation and of test"),
        ({"testListFile": "[1]"}, "holds no ids"),
    ],
)
def test_bad_releases(write_release: Callable[..., Path], change: dict, problem: str):
    with pytest.raises(DataError, match=problem):
        read_release(write_release(**change))


def test_files_that_are_larger_than_any_release(write_release: Callable[..., Path], monkeypatch: pytest.MonkeyPatch):
    folder = write_release()
    archive = zipped(folder, root="")
    monkeypatch.setattr(release, "_MAX_BYTES", 10)
    for source in (folder, archive):
        with pytest.raises(DataError, match=r"data.json has [\d,]+ bytes, more than 10: give the folder or the zip"):
            read_release(source)


def test_a_zip_that_cannot_be_bounded_or_is_damaged(write_release: Callable[..., Path], tmp_path: Path):
    data = (write_release() / "data.json").read_bytes()
    for method, problem in (
        (zipfile.ZIP_BZIP2, "is compressed with method 12: pack"),
        (zipfile.ZIP_DEFLATED, "as a zip"),
    ):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
            archive.writestr("data.json", data)
        packed = bytearray((tmp_path / "a.zip").read_bytes())
        packed[50:60] = bytes(10)
        (tmp_path / "a.zip").write_bytes(packed)
        with pytest.raises(DataError, match=problem):
            read_release(tmp_path / "a.zip")


def test_two_releases_in_one(write_release: Callable[..., Path]):
    folder = write_release("a")
    write_release("b")
    with pytest.raises(DataError, match="in 2 folders"):
        read_release(folder.parent)


def test_no_release(tmp_path: Path, write_release: Callable[..., Path]):
    with pytest.raises(DataError, match="cannot be read"):
        read_release(tmp_path / "nothing.zip")
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(DataError, match="cannot be read as a zip"):
        read_release(tmp_path / "bad.zip")
    with pytest.raises(DataError, match=r"no hotel_db\.json"):
        read_tables(write_release(hotel_db=None))
