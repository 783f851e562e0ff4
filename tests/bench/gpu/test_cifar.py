"""Images of a zip, and batches of them."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from framework.bench.gpu.cifar import IMAGES, compare_rows, made_pictures, read_zip
from framework.bench.gpu.session import Session, read_lines


def test_pictures_of_a_zip(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "small.zip", "w") as archive:
        for number in range(6):
            stream = io.BytesIO()
            Image.fromarray(np.full((32, 32, 3), 40 * number, np.uint8)).save(stream, format="JPEG", quality=100)
            archive.writestr(f"train/{'ab'[number % 2]}/{number}.jpg", stream.getvalue())
    found = read_zip(tmp_path / "small.zip", "train", torch.device("cpu"), 4)
    assert found.pixels.shape == (4, 3, 32, 32)
    # By name: a/0, a/2, a/4, b/1, b/3, b/5, of which every sixth times four.
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert [round(each.float().mean().item() / 40) for each in found.pixels] == [0, 2, 1, 3]


def test_batches_are_random_pictures_in_range():
    pictures = made_pictures(20, 8, torch.device("cpu"), seed=0)
    images, labels = next(pictures.batches(50, seed=0))
    assert images.shape == (50, 3, 8, 8)
    assert images.min() >= -1
    assert images.max() <= 1
    brightness = (images.mean(dim=(1, 2, 3)) + 1) * 127.5
    assert torch.equal(((brightness - 12) / 23).round().long(), labels)


def test_without_images_the_part_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(IMAGES, raising=False)
    compare_rows(Session(part="cifar", folder=tmp_path, rehearse=False, seconds=9.0, device=torch.device("cpu")))
    (line,) = read_lines(tmp_path)
    assert line["skipped"] == f"needs CIFAR-10 as a zip; name it by {IMAGES}"
