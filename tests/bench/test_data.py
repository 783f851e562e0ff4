"""The benchmark of the data runs, and its large sets are real ones."""

import json
from pathlib import Path

import numpy as np
import pytest

from framework.bench import data as bench
from framework.bench.image_shards import make_jpeg_shards, repeat_shards
from framework.core.errors import ConfigError
from framework.data.shards.check import check_shards
from framework.data.shards.reader import ShardSet


def test_repeated_shards_are_a_good_set(tmp_path: Path):
    small = make_jpeg_shards(tmp_path, size=16, num_images=16)
    large = repeat_shards(small, tmp_path / "large", num_samples=40)
    assert check_shards(large) == []
    one, many = ShardSet(small), ShardSet(large)
    assert (len(many), len(many.manifest.shards)) == (48, 24)
    assert [many.read(number) for number in range(48)] == [one.read(number % 16) for number in range(48)]
    assert np.bincount(many.index[:, 0]).tolist() == [2] * 24
    assert (large / "shard-000000.tar").stat().st_nlink == 4


# WebDataset's processes are forks.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_bench_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(bench, "IMAGENET_SAMPLES", 20_000)
    record = bench.bench_data(tmp_path / "out.json", sizes=(16,), workers=(1,), rounds=1)
    assert json.loads((tmp_path / "out.json").read_text()) == record
    (speed,) = record["speed"]
    assert min(value for value in speed.values()) > 0
    resume = record["resume"]
    assert resume["num_samples"] == 24_576
    assert 0 < resume["opened_shards"] <= 16 < resume["num_shards"] == 24
    assert "images per second" in capsys.readouterr().out


@pytest.mark.parametrize("change", [{"sizes": ()}, {"sizes": (4,)}, {"workers": (0,)}, {"rounds": 0}])
def test_numbers_out_of_range(change: dict):
    with pytest.raises(ConfigError, match=f"{next(iter(change))} is"):
        bench.bench_data(**change)
