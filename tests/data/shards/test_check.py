"""Every kind of damage is found and named."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from framework.core.io import sha256_of
from framework.data.convert.class_folders import write_image_shards
from framework.data.images.notes import CONSTANT, DAMAGED, NOT_TURNED, TURNED, NoteCounter
from framework.data.images.options import ReadOptions
from framework.data.images.transforms import ImageTransform
from framework.data.shards.check import CheckOptions, check_shards
from framework.data.shards.reader import ShardSet
from framework.data.shards.validate_sample import TrainingPixels
from framework.testing.images import make_image_folder, make_image_shards


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


def damaged_set(tmp_path: Path, **options: str) -> Path:
    """A set of a sound JPEG, one that was cut and given an end, one that lies on its side, and a plain one."""
    folder = make_image_folder(tmp_path / "images", classes=("cat",), per_class=2, size=(96, 64), suffix=".jpg")
    data = (folder / "cat" / "0001.jpg").read_bytes()
    (folder / "cat" / "cut.jpg").write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(folder / "cat" / "0000.jpg").save(folder / "cat" / "side.jpg", exif=exif)
    Image.new("RGB", (4, 4), "red").save(folder / "cat" / "red.png")
    write_image_shards(folder, tmp_path / "shards", read=ReadOptions(**options))
    return tmp_path / "shards"


def test_damaged_images_are_refused_unless_asked_for(tmp_path: Path):
    shards = damaged_set(tmp_path)
    (skipped,) = ShardSet(shards).manifest.skipped
    assert (skipped.source, skipped.reason[:9]) == ("cat/cut.jpg", "damaged: ")
    assert check_shards(shards) == []


def test_damaged_images_are_kept_and_counted(tmp_path: Path):
    shards = damaged_set(tmp_path, damaged="keep")
    notes = NoteCounter()
    assert check_shards(shards, notes=notes) == []
    found = {note.what: (note.count, note.first) for note in notes.notes()}
    name = "shard-000000.tar/00000000"
    assert found[DAMAGED][0] == 1
    assert re.fullmatch(rf"{name}2.jpg \(.*JPEG.*\)", found[DAMAGED][1])
    assert found[TURNED.what] == (1, f"{name}4.jpg")
    assert found[CONSTANT.what] == (1, f"{name}3.png")
    manifest = ShardSet(shards).manifest
    assert {note.what: note.count for note in manifest.notes} == {what: count for what, (count, _) in found.items()}
    assert manifest.image_sizes == {"96x64": 3, "64x96": 1, "4x4": 1}
    (problem,) = check_shards(shards, CheckOptions(damaged="refuse"))
    assert re.search(r"image at byte \d+ cannot be decoded \(damaged: .*; member 000000002.jpg\)", problem)


def test_the_orientation_is_as_the_set_says_or_as_asked(tmp_path: Path):
    shards = damaged_set(tmp_path, orientation="ignore")
    assert ShardSet(shards).manifest.image_sizes == {"96x64": 3, "4x4": 1}
    for options, expected in ((CheckOptions(), NOT_TURNED), (CheckOptions(orientation="apply"), TURNED)):
        notes = NoteCounter()
        assert check_shards(shards, options, notes=notes) == []
        assert expected.what in [note.what for note in notes.notes()]


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_read_as_training_reads_them(tmp_path: Path, channels):
    """LAB has no way to gray but through colour; two sorts of samples of different size."""
    (tmp_path / "images" / "cat").mkdir(parents=True)
    Image.frombytes("LAB", (40, 4), bytes([115, 62, 40] * 160)).save(tmp_path / "images" / "cat" / "lab.tiff")
    write_image_shards(tmp_path / "images", tmp_path / "shards")
    options = CheckOptions(training=TrainingPixels(channels=channels, size=8))
    assert check_shards(tmp_path / "shards", options) == []
    shards = ShardSet(tmp_path / "shards")
    image = ImageTransform(size=8, channels=channels)(shards.read(0)[0])
    assert image.shape == (channels, 8, 8)


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
