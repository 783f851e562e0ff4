"""The benchmark of sampling on a tiny model: every way draws the same images, and other code is measured beside it."""

import json
from pathlib import Path

import pytest
import torch

from framework.bench.generation.sampling import _our_ways, bench_sampling, matrix_peak, random_model
from framework.core.errors import ConfigError
from framework.pra.sampling import SamplerConfig
from framework.testing.models import tiny_config

TINY = tiny_config()
SAMPLER = SamplerConfig(steps=3, guidance=2.0)


@pytest.mark.slow
def test_every_way_is_measured_beside_other_code(tmp_path: Path, other_code: Path):
    out = tmp_path / "speed.json"
    bench_sampling(
        out, architecture=TINY, sampler=SAMPLER, batch_size=2, few_steps=1, rounds=1, sphere_ar=other_code, device="cpu"
    )
    record = json.loads(out.read_text())
    found = {each["way"]: each for each in record["measured"]}
    ours = ["eager, fp32", "ours, fp32", "ours, fp32, 1 jumps", "ours, bf16", "ours, bf16, 1 jumps"]
    assert list(found) == [f"{kind}: {name}" for kind in ("joint", "separate") for name in ours] + ["SphereAR, eager"]
    assert found["joint: ours, fp32"]["difference"] < 1e-4
    assert 0 < found["joint: ours, bf16"]["difference"] < 0.05
    assert found["joint: ours, bf16, 1 jumps"]["difference"] is None
    assert set(found["joint: ours, fp32"]["faster"]) == {
        "joint: eager, fp32",
        "separate: eager, fp32",
        "SphereAR, eager",
    }
    few, all_steps = (found[f"separate: ours, fp32{steps}"] for steps in (", 1 jumps", ""))
    assert few["gflops"] * few["seconds"] < all_steps["gflops"] * all_steps["seconds"]
    assert record["peak_gflops"]["fp32"] > 0


def test_numbers_out_of_range():
    with pytest.raises(ConfigError, match="rounds 0"):
        bench_sampling(architecture=TINY, rounds=0)


def test_a_model_that_draws_no_tokens_is_refused():
    with pytest.raises(ConfigError, match=r"architecture\.variant diffusion: its images are not drawn token by token"):
        random_model(tiny_config(variant="diffusion"))


def test_a_head_that_predicts_clean_pixels_is_measured_without_jumps():
    config = tiny_config(variant="x_prediction")
    ways = _our_ways(config, SAMPLER, 2, 4, torch.device("cpu"), compiled=False)
    assert list(ways) == ["joint: eager, fp32", "joint: ours, fp32", "joint: ours, bf16"]


def test_a_model_without_zeros():
    model = random_model(TINY)
    assert all(parameter.any() for parameter in model.parameters())


def test_the_peak_is_a_rate():
    assert 1e8 < matrix_peak(torch.device("cpu"), "fp32", attempts=1) < 1e14
