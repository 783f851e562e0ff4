"""The benchmark of the training loop runs, and its figures belong together."""

import json
from pathlib import Path

import pytest

from framework.bench.training.loop import bench_training
from framework.core.errors import ConfigError, TrainingError
from framework.testing.processes.forked import run_warm


@pytest.mark.slow
def test_loop_against_a_bare_one(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("framework.bench.training.loop.subprocess.run", run_warm)
    out = tmp_path / "bench.json"
    record = bench_training(str(recipe), out, batch_sizes=(4,), window=2, rounds=2, save_every=0, hooks=True)
    assert json.loads(out.read_text()) == record
    (speed,) = record["loop"]
    assert speed["batch_size"] == 4
    assert speed["images_per_second"] == pytest.approx(4 / speed["step_seconds"])
    assert 0.2 < speed["over_bare"] < 50
    assert "checkpoint" not in record
    callbacks = {cost["owner"] for cost in record["hooks"] if cost["is_callback"]}
    assert {"Watchdog", "FiniteGuard", "StepMetrics", "Throughput", "Checkpoints"} <= callbacks


@pytest.mark.slow
def test_run_that_fails(recipe: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("framework.bench.training.loop.subprocess.run", run_warm)
    with pytest.raises(TrainingError, match=r"a run of the benchmark failed .*learning_rate"):
        bench_training(str(recipe), window=2, rounds=1, options=["--model.init_args.optimizer.learning_rate", "-1"])


@pytest.mark.parametrize("change", [{"window": 0}, {"rounds": 0}, {"save_every": -1}])
def test_numbers_out_of_range(recipe: Path, change: dict):
    with pytest.raises(ConfigError, match=f"{next(iter(change))} is"):
        bench_training(str(recipe), **change)
