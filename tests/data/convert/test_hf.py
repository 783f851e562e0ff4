"""Folders of Hugging Face's datasets become shards: nothing lost unseen, the same bytes each time."""

import builtins
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from framework.core.errors import ConfigError, DataError
from framework.data.convert.hf import write_hf_shards
from framework.data.shards.check import check_shards
from framework.data.shards.reader import ShardSet
from framework.data.shards.source_paths import find_source
from framework.data.shards.writer import WriteOptions
from framework.testing.shard_sets import all_samples, digests


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning")
class TestHuggingFace:
    @pytest.fixture
    def images(self) -> list[Image.Image]:
        return [Image.fromarray(np.full((8, 8, 3), 10 * number, np.uint8)) for number in range(4)]

    def save(self, path: Path, columns: dict, **features) -> Path:
        datasets = pytest.importorskip("datasets")
        data = datasets.Dataset.from_dict(columns)
        for name, feature in features.items():
            data = data.cast_column(name, feature)
        data.save_to_disk(str(path))
        return path

    def test_images(self, tmp_path: Path, images):
        datasets = pytest.importorskip("datasets")
        label = datasets.ClassLabel(names=["ant", "bee", "cat"])
        source = self.save(tmp_path / "hf", {"img": images, "y": [1, 0, -1, 1]}, img=datasets.Image(), y=label)
        manifest = write_hf_shards(source, tmp_path / "shards")
        assert (manifest.classes, manifest.class_counts) == (("ant", "bee", "cat"), (1, 2, 0))
        assert [(each.source, each.reason) for each in manifest.skipped] == [("row 2", "it has no label")]
        assert [label for _, label in all_samples(tmp_path / "shards")] == [1, 0, 1]
        assert ShardSet(tmp_path / "shards").member(0) == "000000000.png"
        assert check_shards(tmp_path / "shards") == []
        write_hf_shards(source, tmp_path / "again", options=WriteOptions(workers=1))
        assert digests(tmp_path / "again") == digests(tmp_path / "shards")

    def test_names_as_labels(self, tmp_path: Path, images):
        datasets = pytest.importorskip("datasets")
        source = self.save(tmp_path / "hf", {"img": images, "y": ["b", "a", None, "b"]}, img=datasets.Image())
        with pytest.raises(
            ConfigError, match="the label columns are none: name the column with --label, or use --uncond"
        ):
            write_hf_shards(source, tmp_path / "shards")
        manifest = write_hf_shards(source, tmp_path / "shards", label="y")
        assert (manifest.classes, manifest.class_counts) == (("a", "b"), (1, 2))

    def test_images_without_classes(self, tmp_path: Path, images):
        datasets = pytest.importorskip("datasets")
        source = self.save(tmp_path / "hf", {"img": images}, img=datasets.Image())
        manifest = write_hf_shards(source, tmp_path / "shards", unconditional=True)
        assert (manifest.classes, manifest.class_counts, manifest.unconditional) == (("all",), (4,), True)
        assert find_source(tmp_path / "shards", "000000002.png").path == "row 2"
        with pytest.raises(ConfigError, match="unconditional data have no labels"):
            write_hf_shards(source, tmp_path / "again", unconditional=True, label="img")

    def test_rows(self, tmp_path: Path):
        source = self.save(tmp_path / "hf", {"task": ["a", "b"], "steps": [[1, 2], []]})
        write_hf_shards(source, tmp_path / "shards")
        found = [json.loads(data) for data, _ in all_samples(tmp_path / "shards")]
        assert found == [{"task": "a", "steps": [1, 2]}, {"task": "b", "steps": []}]

    def test_splits(self, tmp_path: Path):
        datasets = pytest.importorskip("datasets")
        data = datasets.Dataset.from_dict({"x": [1]})
        datasets.DatasetDict({"train": data, "test": data}).save_to_disk(str(tmp_path / "hf"))
        with pytest.raises(ConfigError, match="holds the splits train, test: choose one of them with --split"):
            write_hf_shards(tmp_path / "hf", tmp_path / "shards")
        assert write_hf_shards(tmp_path / "hf", tmp_path / "shards", split="test").num_samples == 1

    def test_no_dataset(self, tmp_path: Path):
        pytest.importorskip("datasets")
        with pytest.raises(DataError, match="missing: it is not a folder"):
            write_hf_shards(tmp_path / "missing", tmp_path / "shards")
        with pytest.raises(DataError, match="cannot be read"):
            write_hf_shards(tmp_path, tmp_path / "shards")


def test_package_that_is_missing(tmp_path: Path, monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "datasets":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ConfigError, match=r'`datasets` is not installed: install it with: pip install "framework\[hf\]"'
    ):
        write_hf_shards(tmp_path, tmp_path / "shards")
