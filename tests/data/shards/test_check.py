"""Every kind of damage is found and named."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from framework.core.io import sha256_of
from framework.data.shards.check import check_shards
from framework.testing.images import make_image_shards


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("check")
    make_image_shards(path, per_class=4, samples_per_shard=4)
    return path / "shards"


@pytest.fixture
def shards(good: Path, tmp_path: Path) -> Path:
    return shutil.copytree(good, tmp_path / "shards")


def edit_manifest(shards: Path, change: Callable[[dict], None]) -> None:
    manifest = json.loads((shards / "manifest.json").read_text())
    change(manifest)
    (shards / "manifest.json").write_text(json.dumps(manifest))


def edit_shard(shards: Path, change: Callable[[bytes], bytes], *, hide: bool) -> None:
    """Changes the first shard; `hide` makes its record fit, so that only its contents can tell."""
    path = shards / "shard-000000.tar"
    path.write_bytes(change(path.read_bytes()))
    if hide:
        edit_manifest(shards, lambda manifest: manifest["shards"][0].update(sha256=sha256_of(path)))


def edit_index(shards: Path, *, hide: bool) -> None:
    index = np.load(shards / "index.npy")
    index[1, 3] = 1
    np.save(shards / "index.npy", index)
    if hide:
        edit_manifest(shards, lambda manifest: manifest.update(index_sha256=sha256_of(shards / "index.npy")))


def test_good_set(shards: Path):
    assert check_shards(shards) == []


def flip_a_pixel_byte(data: bytes) -> bytes:
    at = data.index(b"IDAT") + 12
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "flipped byte": (
        lambda shards: edit_shard(shards, lambda data: data[:-1] + b"x", hide=False),
        [r"shard-000000.tar: its sha256 is not the manifest's", "not a readable shard .damaged: from byte"],
    ),
    "missing shard": (lambda shards: (shards / "shard-000001.tar").unlink(), ["shard-000001.tar: missing"]),
    "extra partial": (
        lambda shards: (shards / "shard-000002.tar.partial").write_bytes(b""),
        ["shard-000002.tar.partial: not in the manifest"],
    ),
    "truncated tar": (
        lambda shards: edit_shard(shards, lambda data: data[:1000], hide=False),
        ["shard-000000.tar: 1,000 bytes, the manifest says", "shard-000000.tar: not a readable shard"],
    ),
    "corrupt image": (
        lambda shards: edit_shard(shards, flip_a_pixel_byte, hide=True),
        [r"shard-000000.tar: the image at byte \d+ cannot be decoded"],
    ),
    "path as a member": (
        lambda shards: edit_shard(shards, lambda data: data.replace(b"000000000.png", b"../../etc.png"), hide=True),
        ["shard-000000.tar: not a readable shard"],
    ),
    "index changed": (lambda shards: edit_index(shards, hide=False), ["index.npy: its sha256", "the index does not"]),
    "index of other images": (
        lambda shards: edit_index(shards, hide=True),
        ["shard-000000.tar: the index does not describe it"],
    ),
    "index missing": (lambda shards: (shards / "index.npy").unlink(), ["index.npy cannot be read"]),
    "label out of range": (
        lambda shards: edit_manifest(shards, lambda manifest: manifest["classes"].pop()),
        ["manifest.json: 1 classes, but 2 counts", *["shard-000001.tar: label 1 at byte"] * 4],
    ),
    "counts": (
        lambda shards: edit_manifest(shards, lambda manifest: manifest.update(class_counts=[3, 5])),
        ["class 'cat': 4 images, the manifest says 3", "class 'dog': 4 images, the manifest says 5"],
    ),
    "no manifest": (lambda shards: (shards / "manifest.json").unlink(), ["has no manifest.json"]),
    "manifest of another version": (
        lambda shards: edit_manifest(shards, lambda manifest: manifest.update(format_version=2)),
        ["has format version 2 and kind 'images', not 1"],
    ),
    "manifest without a key": (
        lambda shards: edit_manifest(shards, lambda manifest: manifest.pop("shards")),
        ["no 'shards'"],
    ),
    "manifest with a wrong type": (
        lambda shards: edit_manifest(shards, lambda manifest: manifest.update(num_samples="many")),
        ["manifest.json is damaged"],
    ),
    "manifest that is not JSON": (
        lambda shards: (shards / "manifest.json").write_text("{"),
        ["manifest.json cannot be read"],
    ),
    "no folder": (lambda shards: shutil.rmtree(shards), ["no shard set at"]),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found(shards: Path, name: str):
    damage, expected = DAMAGES[name]
    damage(shards)
    problems = check_shards(shards, workers=2)
    assert len(problems) == len(expected), problems
    for problem, pattern in zip(problems, expected, strict=True):
        assert re.search(pattern, problem), problem


def test_all_damage_is_reported(shards: Path):
    (shards / "shard-000001.tar").unlink()
    (shards / "stray").touch()
    edit_shard(shards, flip_a_pixel_byte, hide=False)
    assert len(check_shards(shards)) == 4
