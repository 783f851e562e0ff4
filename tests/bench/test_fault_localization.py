"""The benchmark of planted faults on few episodes."""

import json
from pathlib import Path

import pytest

from framework.bench.fault_localization import bench_fault_localization
from framework.core.errors import ConfigError


@pytest.mark.slow
def test_bench_blame_writes_what_it_shows(tmp_path: Path):
    record = bench_fault_localization(
        tmp_path / "blame.json", num_episodes=5, num_choosing=5, scalars=("sequence_log_prob",)
    )
    assert json.loads((tmp_path / "blame.json").read_text()) == json.loads(json.dumps(record))
    methods = {score["method"] for score in record["judging"]}
    assert {"random", "leave_one_out", record["chosen"]} <= methods
    with pytest.raises(ConfigError, match="num_choosing is 2"):
        bench_fault_localization(num_choosing=2)


@pytest.mark.parametrize("option", [{"folder": Path("run")}, {"systems": ("kitchen",)}, {"candidates": ("ours",)}])
def test_options_of_the_real_world_are_refused_in_the_micro_world(option: dict):
    with pytest.raises(ConfigError, match=f"{next(iter(option))} .* in the micro world: give --world real"):
        bench_fault_localization(**option)
