"""The benchmark of a training step on a tiny model."""

import json
from pathlib import Path

import pytest

from framework.bench.generation.training_step import bench_step
from framework.core.errors import ConfigError
from framework.testing.models import tiny_config

TINY_RGB = tiny_config(channels=3)


@pytest.mark.slow
def test_a_step_is_measured_beside_other_code(tmp_path: Path, other_code: Path):
    out = tmp_path / "step.json"
    bench_step(out, architecture=TINY_RGB, batch_size=2, rounds=1, sphere_ar=other_code)
    record = json.loads(out.read_text())
    found = {each["way"]: each for each in record["measured"]}
    assert list(found) == ["ours", "ours, torch's products", "ours, bf16-mixed", "SphereAR"]
    # Three products of 2 x 3 rows of 4 values for each of a layer of 4 x 4.
    assert found["SphereAR"]["tflop"] * 1e12 == pytest.approx(2 * 2 * 3 * 4 * 4 * 2)
    assert all(each["gflops"] > 0 for each in found.values())


def test_numbers_out_of_range():
    with pytest.raises(ConfigError, match="batch_size 0"):
        bench_step(architecture=TINY_RGB, batch_size=0)
