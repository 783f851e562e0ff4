"""The handwritten digits: a fixed, stratified split of all of them, pixel for pixel."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from framework.core.errors import ConfigError
from framework.data.convert.class_folders import write_image_shards
from framework.data.convert.digits import write_digit_images
from framework.data.convert.find import FindOptions


@pytest.mark.slow
def test_digits(tmp_path: Path):
    datasets = pytest.importorskip("sklearn.datasets")
    write_digit_images(tmp_path / "digits")
    train = write_image_shards(tmp_path / "digits", tmp_path / "train", find=FindOptions(folder="train"))
    test = write_image_shards(tmp_path / "digits", tmp_path / "test", find=FindOptions(folder="test"))
    assert (train.num_samples, test.num_samples) == (1438, 359)
    assert train.classes == test.classes == tuple("0123456789")
    assert all(abs(4 * few - many) <= 5 for few, many in zip(test.class_counts, train.class_counts, strict=True))
    assert (train.image_sizes, train.image_modes, train.skipped) == ({"8x8": 1438}, {"L": 1438}, ())
    values, labels = datasets.load_digits(return_X_y=True)
    for path in (tmp_path / "digits").rglob("*.png"):
        number = int(path.stem)
        assert labels[number] == int(path.parent.name)
        assert np.array_equal(np.round(values[number].reshape(8, 8) * 255 / 16), np.array(Image.open(path)))


def test_without_scikit_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ConfigError, match=r'pip install "framework\[digits\]"'):
        write_digit_images(tmp_path)
