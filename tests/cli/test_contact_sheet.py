"""The contact sheet: each image at its own size, with the name of its class."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from framework.cli.contact_sheet import save_contact_sheet
from framework.core.errors import DataError
from framework.data.convert.class_folders import write_image_shards
from framework.data.shards.reader import ShardSet
from framework.evaluation import grid


@pytest.fixture
def shards(tmp_path: Path) -> ShardSet:
    """A photo of noise, and one pixel."""
    for name, side in (("photo", 64), ("pixel", 1)):
        (tmp_path / "images" / name).mkdir(parents=True)
        noise = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "images" / name / "0.png")
    write_image_shards(tmp_path / "images", tmp_path / "shards", workers=1)
    return ShardSet(tmp_path / "shards")


def test_a_tiny_image_does_not_make_the_others_flat(shards: ShardSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written: list[str] = []
    monkeypatch.setattr(grid, "_write_line", lambda draw, text, **place: written.append(text))
    save_contact_sheet(tmp_path / "peek.png", shards, num=2, size=32)
    assert written == ["photo", "pixel"]
    with Image.open(tmp_path / "peek.png") as sheet:
        pixels = np.asarray(sheet)
    assert pixels.shape == (64 + 4 + 16, 2 * 68, 3)
    assert len(np.unique(pixels[2:66, 2:66].reshape(-1, 3), axis=0)) > 1000
    assert len(np.unique(pixels[2:66, 70:134].reshape(-1, 3), axis=0)) == 1


def test_an_image_that_cannot_be_decoded_is_named(shards: ShardSet, tmp_path: Path):
    shard = Path(shards.path) / "shard-000000.tar"
    shard.write_bytes(shard.read_bytes().replace(b"\x89PNG", b"\x00PNG"))
    with pytest.raises(DataError, match=r"sample 0 \(byte .*shard-000000.tar\) cannot be decoded"):
        save_contact_sheet(tmp_path / "peek.png", shards, num=2, size=32)
