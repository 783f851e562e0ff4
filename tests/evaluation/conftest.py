"""Real digits as sample sets and as shards."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from framework.data.convert.class_folders import write_image_shards
from framework.evaluation.samples import SampleSet


@pytest.fixture(scope="session")
def digits() -> tuple[SampleSet, SampleSet]:
    """scikit-learn's real digits, 8x8 gray: 1,437 for training and 360 held out."""
    data = load_digits()
    images = (data.images * 255 / 16).round().astype(np.uint8)[..., None]
    order = np.random.default_rng(0).permutation(len(images))
    labels = data.target.astype(np.int64)
    training, held_out = order[360:], order[:360]
    return (
        SampleSet(images=images[training], labels=labels[training], name="training digits"),
        SampleSet(images=images[held_out], labels=labels[held_out], name="held-out digits"),
    )


@pytest.fixture(scope="session")
def digit_shards(digits, tmp_path_factory) -> tuple[Path, Path]:
    """The same two sets as shards."""
    folder = tmp_path_factory.mktemp("digits")
    for part, images in zip(("training", "held_out"), digits, strict=True):
        for name in range(10):
            (folder / part / str(name)).mkdir(parents=True)
        for number, (pixels, label) in enumerate(zip(images.images, images.labels, strict=True)):
            Image.fromarray(pixels[..., 0]).save(folder / part / str(label) / f"{number:04d}.png")
        write_image_shards(folder / part, folder / f"{part}_shards", workers=1)
    return folder / "training_shards", folder / "held_out_shards"
