"""Class folders of a directory or a zip become shards."""

import shutil
from pathlib import Path

import pytest

from framework.core.errors import DataError
from framework.data.convert.class_folders import write_image_shards
from framework.testing.images import make_image_folder
from framework.testing.shard_sets import all_samples, digests


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return make_image_folder(tmp_path / "images", per_class=3)


def test_destination_inside_the_images(images: Path):
    with pytest.raises(DataError, match="lies inside the images"):
        write_image_shards(images, images / "shards")


def test_a_folder_inside_a_zip_gives_the_same_bytes(images: Path, tmp_path: Path):
    shutil.copytree(images, tmp_path / "both" / "train")
    archive = shutil.make_archive(str(tmp_path / "both"), "zip", tmp_path / "both")
    write_image_shards(images, tmp_path / "shards")
    write_image_shards(archive, tmp_path / "zipped", folder="train")
    assert digests(tmp_path / "zipped") == digests(tmp_path / "shards")
    assert [label for _, label in all_samples(tmp_path / "zipped")] == [0, 0, 0, 1, 1, 1]
