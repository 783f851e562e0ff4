"""Tar archives as others make them, packed or not: links, names twice or not UTF-8, members that are too large."""

import bz2
import gzip
import lzma
import random
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from framework.core.errors import DataError
from framework.data.convert.contents import Contents
from framework.data.convert.tar_container import Bzip2TarContainer, GzipTarContainer, TarContainer, XzTarContainer
from framework.testing.tars import write_tar


def header(name: str, kind: bytes = tarfile.REGTYPE, **values: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    for key, value in values.items():
        setattr(member, key, value)
    return member


KINDS = {
    "tar": (bytes, TarContainer),
    "tar.gz": (gzip.compress, GzipTarContainer),
    "tar.bz2": (bz2.compress, Bzip2TarContainer),
    "tar.xz": (lzma.compress, XzTarContainer),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def opened(path: Path, kind: str) -> TarContainer:
    pack, container = KINDS[kind]
    path.write_bytes(pack(path.read_bytes()))
    return container(path)


def reasons(contents: Contents) -> dict[str, str]:
    return {each.source: each.reason for each in contents.skipped}


def test_members_are_read_where_they_are(tmp_path: Path, kind: str):
    images = {f"c/{number:03d}.png": bytes([number]) * (997 * number) for number in range(60)}
    container = opened(write_tar(tmp_path / "a.tar", images.items()), kind)
    contents = container.contents(folder="", follow_links=False)
    assert contents.in_order == (kind != "tar")
    files = sorted(contents.files.values(), key=lambda file: file.path, reverse=True)
    with ThreadPoolExecutor(3) as pool:
        read = dict(zip([file.path for file in files], pool.map(container.read, files), strict=True))
    assert read == images
    container.close()


def test_odd_members(tmp_path: Path, kind: str):
    members = [
        (header("./c", tarfile.DIRTYPE), b""),
        ("./c/1.png", b"old"),
        (header("d/hard.png", tarfile.LNKTYPE, linkname="./c/1.png"), b""),
        (header("d/soft.png", tarfile.SYMTYPE, linkname="../c/1.png"), b""),
        (header("d/pipe.png", tarfile.FIFOTYPE), b""),
        ("../out.png", b"1"),
        ("./c/1.png", b"new"),
    ]
    container = opened(write_tar(tmp_path / "a.tar", members), kind)
    contents = container.contents(folder="", follow_links=False)
    assert {path: container.read(file) for path, file in contents.files.items()} == {
        "c/1.png": b"new",
        "d/hard.png": b"new",
    }
    assert reasons(contents) == {
        "c/1.png": "another file of the same name follows in the archive",
        "../out.png": "its path leads out of the archive",
        "d/pipe.png": "a device, a pipe or something unknown, not a regular file",
        "d/soft.png": "a link (--follow_links follows it)",
    }
    assert "d/soft.png" in container.contents(folder="", follow_links=True).files
    container.close()


def test_a_large_member_is_not_read(tmp_path: Path, kind: str):
    path = write_tar(tmp_path / "a.tar", [("c/1.png", b"1")])
    container = opened(path, kind)
    (file,) = container.contents(folder="", follow_links=False).files.values()
    object.__setattr__(file, "size", 3 << 30)
    with pytest.raises(ValueError, match="3,221,225,472 bytes, more than 268,435,456"):
        container.read(file)
    container.close()


def test_damage(tmp_path: Path, kind: str):
    path = write_tar(tmp_path / "a.tar", [("c/1.png", random.Random(0).randbytes(20000))])
    container = opened(path, kind)
    container.close()
    path.write_bytes(path.read_bytes()[: 9000 if kind == "tar" else -60])
    container = type(container)(path)
    with pytest.raises(DataError, match=r"a.tar cannot be read \(.*\): make or fetch the archive again"):
        container.contents(folder="", follow_links=False)
    container.close()
