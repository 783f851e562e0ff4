"""The benchmark of repairs."""

from pathlib import Path

import pytest

from framework.bench.prompt_repair import bench_repair
from framework.core.errors import ConfigError


@pytest.mark.slow
def test_bench_repair(tmp_path: Path):
    record = bench_repair(tmp_path / "repair.json", num_faults=1, num_tasks=4, num_wrong=1, scalars=("sum_squares",))
    assert [each["optimizer"] for each in record["repairs"]] == ["led by blame", "sum_squares", "spread evenly"]
    assert "sum_squares" in (tmp_path / "repair.svg").read_text(encoding="utf-8")
    assert record["faulty_success"] < record["healthy_success"]


def test_real_systems_are_refused_in_the_micro_world():
    with pytest.raises(ConfigError, match=r"systems \('kitchen',\) in the micro world: give --world real"):
        bench_repair(systems=("kitchen",))
