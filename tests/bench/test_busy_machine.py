"""The benchmark beside processes that count runs, and stops what it has started."""

import json
from pathlib import Path

import pytest

from framework.bench import busy_machine
from framework.bench.busy_machine import LIBRARIES, OURS, bench_busy
from framework.core.errors import ConfigError, TrainingError


@pytest.mark.slow
@pytest.mark.usefixtures("warm_interpreter")
def test_every_number_is_measured(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "busy.json"
    record = bench_busy(str(recipe), out, beside=(1,), spin_counts=(), seconds=0.1, rounds=1)
    assert json.loads(out.read_text()) == record
    assert list(record["steps_per_second"]) == [LIBRARIES, OURS]
    assert all(each["1"] > 0 for each in record["steps_per_second"].values())
    assert "beside 1" in capsys.readouterr().out


def test_counting_processes_end_with_the_block():
    with busy_machine._counting(2), pytest.raises(ZeroDivisionError), busy_machine._counting(1) as _:
        _ = 1 / 0


@pytest.mark.slow
@pytest.mark.usefixtures("warm_interpreter")
def test_what_cannot_be_measured(tmp_path: Path):
    with pytest.raises(ConfigError, match="rounds 0"):
        bench_busy("recipe.yaml", rounds=0)
    with pytest.raises(TrainingError, match=r"the steps of .*none\.yaml failed"):
        bench_busy(str(tmp_path / "none.yaml"), beside=(0,), rounds=1)
