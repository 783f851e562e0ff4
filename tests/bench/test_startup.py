"""The start of a run is measured up to its first step, and a run that fails is said."""

import json
from pathlib import Path

import pytest

from framework.bench import startup
from framework.bench.startup import FIT, LIBRARIES, EndAfterFirstStep, bench_startup
from framework.core.errors import ConfigError, TrainingError
from framework.testing.processes.forked import start_command


def test_the_first_round_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    seconds = iter([50.0, 40.0, 3.0, 2.0, 6.0, 4.0, 9.0, 3.0])
    asked: list[list[str]] = []
    monkeypatch.setattr(startup, "_processor_seconds", lambda arguments: asked.append(arguments) or next(seconds))
    record = bench_startup("digits.yaml", tmp_path / "startup.json", rounds=3)
    assert record["processor_seconds"] == {FIT: 6.0, LIBRARIES: 3.0}
    assert record["ratio"] == 2.0
    assert json.loads((tmp_path / "startup.json").read_text()) == record
    assert [arguments[:3] == ["-m", "framework.cli.main", "fit"] for arguments in asked] == [True, False] * 4
    assert "3.00, 6.00, 9.00" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_ends_after_its_first_step(recipe: Path, tmp_path: Path):
    ending = f"--trainer.callbacks+={startup.__name__}.{EndAfterFirstStep.__name__}"
    ended = start_command("fit", f"--config={recipe}", ending).finish(timeout=300)
    assert ended.exitcodes[0] == 0, ended.output
    assert (tmp_path / "run").exists()
    assert not list(tmp_path.rglob("step-*"))


@pytest.mark.slow
def test_what_cannot_be_measured(tmp_path: Path):
    with pytest.raises(ConfigError, match="rounds 0"):
        bench_startup("recipe.yaml", rounds=0)
    assert startup._processor_seconds(["-c", "sum(range(10**6))"]) > 0
    with pytest.raises(TrainingError, match=r"python -c assert 0 == 1, 7 failed \(AssertionError: 7\)"):
        startup._processor_seconds(["-c", "assert 0 == 1, 7"])
