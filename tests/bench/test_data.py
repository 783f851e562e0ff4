"""The benchmark of the data runs."""

import json
from pathlib import Path

import pytest

from framework.bench import data as bench
from framework.core.errors import ConfigError


# WebDataset's processes are forks.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_bench_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(bench, "MOST_IMAGES", 1024)
    monkeypatch.setattr(bench, "IMAGENET_SAMPLES", 2_500)
    record = bench.bench_data(tmp_path / "out.json", sizes=(16,), workers=(1,), rounds=1)
    assert json.loads((tmp_path / "out.json").read_text()) == record
    (speed,) = record["speed"]
    assert min(value for value in speed.values()) > 0
    resume = record["resume"]
    assert resume["num_samples"] == 3072
    assert 0 < resume["opened_shards"] <= 16 < resume["num_shards"] == 24
    assert "images per second" in capsys.readouterr().out


@pytest.mark.parametrize("change", [{"sizes": ()}, {"sizes": (4,)}, {"workers": (0,)}, {"rounds": 0}])
def test_numbers_out_of_range(change: dict):
    with pytest.raises(ConfigError, match=f"{next(iter(change))} is"):
        bench.bench_data(**change)
