"""The benchmark of repairs."""

from pathlib import Path
from typing import Any

import pytest

from framework.bench.prompt_repair import bench_repair
from framework.core.errors import ConfigError
from framework.gbc.attribution.options import AttributionOptions
from framework.testing.servers.model_server import serving


@pytest.mark.slow
def test_bench_repair(tmp_path: Path):
    writers = tmp_path / "writers.yaml"
    with serving() as server:
        writers.write_text(f"large: {{url: '{server.url}', model: big}}\n")
        sizes = {"num_faults": 1, "num_tasks": 4, "num_wrong": 1}
        record = bench_repair(tmp_path / "repair.json", **sizes, scalars=("sum_squares",), writers=writers)
    tried = [each["optimizer"] for each in record["repairs"]]
    assert tried == ["led by blame", "sum_squares", "opro by large, led by blame", "spread evenly"]
    assert "Write a better prompt for" in server.seen[0][2]["messages"][1]["content"]
    assert "sum_squares" in (tmp_path / "repair.svg").read_text(encoding="utf-8")
    assert record["faulty_success"] < record["healthy_success"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_wrong": 3}, "num_wrong 3 in the real world: leave --num_wrong out"),
        ({"attribution": AttributionOptions(top_m=2)}, "attribution in the real world: leave --attribution out"),
    ],
)
def test_options_of_the_micro_world_are_refused_in_the_real_one(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        bench_repair(world="real", **options)


def test_real_systems_are_refused_in_the_micro_world():
    with pytest.raises(ConfigError, match=r"systems \('kitchen',\) in the micro world: give --world real"):
        bench_repair(systems=("kitchen",))
