"""The benchmark of sampling on a tiny model: every way draws the same images, and other code is measured beside it."""

import json
import sys
from pathlib import Path

import pytest
import torch

from framework.bench.sampling import bench_sampling, matrix_peak, random_model
from framework.bench.training_step import bench_step
from framework.core.errors import ConfigError
from framework.pra.sampling import SamplerConfig
from framework.testing.models import tiny_config

TINY = tiny_config()
TINY_RGB = tiny_config(channels=3)
SAMPLER = SamplerConfig(steps=3, guidance=2.0)

OTHER = """
import torch
from flash_attn import flash_attn_func

class SphereAR(torch.nn.Module):
    def __init__(self, **sizes):
        super().__init__()
        self.sizes = sizes
        self.layer = torch.nn.Linear(4, 4)

    def sample(self, labels, sample_steps, cfg_scale):
        assert sample_steps == 2 and cfg_scale == 2.0
        q = torch.randn(len(labels), 5, 2, 4)
        return flash_attn_func(self.layer(q), q, q, causal=True)

    def forward(self, images, labels):
        return self.layer(images.mean((2, 3)).repeat(1, 2)[:, :4].repeat(3, 1)).sum(), 0, None
"""


@pytest.fixture
def other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "checkout" / "SphereAR"
    package.mkdir(parents=True)
    (package / "model.py").write_text(OTHER)
    before = {*sys.modules}
    yield package.parent
    for name in {*sys.modules} - before:
        if name.startswith(("SphereAR", "flash_attn")):
            del sys.modules[name]


@pytest.mark.slow
def test_every_way_is_measured_beside_other_code(tmp_path: Path, other_code: Path):
    out = tmp_path / "speed.json"
    bench_sampling(
        out, architecture=TINY, sampler=SAMPLER, batch_size=2, few_steps=1, rounds=1, sphere_ar=other_code, device="cpu"
    )
    record = json.loads(out.read_text())
    found = {each["way"]: each for each in record["measured"]}
    ours = ["eager, fp32", "ours, fp32", "ours, fp32, 1 steps", "ours, bf16", "ours, bf16, 1 steps"]
    assert list(found) == [f"{kind}: {name}" for kind in ("joint", "separate") for name in ours] + ["SphereAR, eager"]
    assert found["joint: ours, fp32"]["difference"] < 1e-4
    assert 0 < found["joint: ours, bf16"]["difference"] < 0.05
    assert found["joint: ours, bf16, 1 steps"]["difference"] is None
    assert set(found["joint: ours, fp32"]["faster"]) == {
        "joint: eager, fp32",
        "separate: eager, fp32",
        "SphereAR, eager",
    }
    few, all_steps = (found[f"separate: ours, fp32{steps}"] for steps in (", 1 steps", ""))
    assert few["gflops"] * few["seconds"] < all_steps["gflops"] * all_steps["seconds"]
    assert record["peak_gflops"]["fp32"] > 0


def test_a_folder_without_the_other_code(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"has no SphereAR/model\.py"):
        bench_sampling(architecture=TINY, sampler=SAMPLER, sphere_ar=tmp_path, modulations=(), device="cpu")


def test_numbers_out_of_range():
    with pytest.raises(ConfigError, match="rounds 0"):
        bench_sampling(architecture=TINY, rounds=0)


def test_a_model_without_zeros():
    model = random_model(TINY)
    assert all(parameter.any() for parameter in model.parameters())


def test_a_step_is_measured_beside_other_code(tmp_path: Path, other_code: Path):
    out = tmp_path / "step.json"
    bench_step(out, architecture=TINY_RGB, batch_size=2, rounds=1, sphere_ar=other_code)
    record = json.loads(out.read_text())
    found = {each["way"]: each for each in record["measured"]}
    assert list(found) == ["ours", "ours, torch's products", "ours, bf16-mixed", "SphereAR"]
    # Three products of 2 x 3 rows of 4 values for each of a layer of 4 x 4.
    assert found["SphereAR"]["tflop"] * 1e12 == pytest.approx(2 * 2 * 3 * 4 * 4 * 2)
    assert all(each["gflops"] > 0 for each in found.values())


def test_the_peak_is_a_rate():
    assert 1e8 < matrix_peak(torch.device("cpu"), "fp32", attempts=1) < 1e14
