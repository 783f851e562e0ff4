"""Small images for tests: always the same, of the asked kind."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from framework.data.shards.reader import ShardSet
from framework.testing.images import make_image_folder, make_image_shards


def test_images_are_always_the_same_and_unlike_each_other(tmp_path: Path):
    first, second = (make_image_folder(tmp_path / name) for name in ("first", "second"))
    names = sorted(str(path.relative_to(first)) for path in first.rglob("*.png"))
    assert names == [f"{label}/{number:04d}.png" for label in ("cat", "dog") for number in range(4)]
    contents = [(first / name).read_bytes() for name in names]
    assert contents == [(second / name).read_bytes() for name in names]
    assert len(set(contents)) == len(contents)


@pytest.mark.parametrize(("mode", "shape"), [("RGB", (6, 9, 3)), ("L", (6, 9))])
def test_size_mode_and_format(tmp_path: Path, mode: str, shape: tuple[int, ...]):
    folder = make_image_folder(tmp_path, classes=("only",), per_class=1, size=(9, 6), mode=mode, suffix=".bmp")
    with Image.open(folder / "only" / "0000.bmp") as image:
        assert image.format == "BMP"
        assert np.asarray(image).shape == shape


def test_shards_hold_the_images_of_the_folder(tmp_path: Path):
    manifest = make_image_shards(tmp_path, per_class=3, size=8)
    shards = ShardSet(tmp_path / "shards")
    assert len(shards) == manifest.num_samples == 6
    files = {path.read_bytes() for path in (tmp_path / "images").rglob("*.png")}
    assert {shards.read(number)[0] for number in range(6)} == files
    assert sorted(shards.read(number)[1] for number in range(6)) == [0, 0, 0, 1, 1, 1]
