"""The command `steps`: what is measured, what stays, what is left out."""

from pathlib import Path

import numpy as np
import pytest
import torch

from framework.core.errors import ConfigError
from framework.evaluation.distances import frechet_distance
from framework.evaluation.features import PixelFeatures, extract_features
from framework.evaluation.samples import SampleSet, quantize_images, write_npz
from framework.pra.checkpoint import load_pra
from framework.pra.commands.head_steps.results import read_results
from framework.pra.commands.steps import steps
from framework.pra.generate import balanced_labels, generate
from framework.pra.sampling import SamplerConfig


@pytest.fixture
def reference(tmp_path: Path) -> str:
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1), dtype=np.uint8)
    write_npz(tmp_path / "real.npz", SampleSet(images=images, name="real"))
    return str(tmp_path / "real.npz")


@pytest.mark.slow
def test_each_point_is_the_distance_of_the_sampler_s_images(trained: Path, tmp_path: Path, reference: str):
    out = tmp_path / "steps"
    network = PixelFeatures()

    def measure(numbers: list[int]) -> None:
        steps(
            str(out),
            runs={"flow": [str(trained)]},
            reference=reference,
            features=network,
            methods=["euler", "jump"],
            steps=numbers,
            guidance=[1.5],
            seeds=[3],
            num=12,
            batch_size=5,
            device="cpu",
        )

    measure([2])
    measure([1, 2])
    found = read_results(out / "steps.jsonl")
    # No jumps, which this head does not know, and nothing twice.
    samplers = [SamplerConfig(steps=n, method="euler", guidance=1.5) for n in (2, 1)]
    assert [each.point.sampler for each in found] == samplers
    assert {path.name for path in out.iterdir()} >= {"steps.md", "steps.svg", "steps.png"}
    labels = balanced_labels(12, range(3))
    drawn = torch.cat(list(generate(load_pra(trained), labels, seed=3, sampler=samplers[0])))
    images = SampleSet(images=quantize_images(drawn).permute(0, 2, 3, 1).numpy(), name="drawn")
    real = SampleSet(images=np.load(reference)["arr_0"], name="real")
    features = [extract_features(network, each.with_channels(1), batch_size=10) for each in (images, real)]
    assert found[0].distance == pytest.approx(frechet_distance(*features), rel=1e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num": 1}, "num 1, batch_size 500"),
        ({"runs": {}}, "nothing to measure: give a run"),
        ({"seeds": []}, "nothing to measure"),
        ({"methods": ["jump"]}, "nothing to measure: give a run, a method for its head"),
        ({"guidance": [0.5]}, "guidance 0.5"),
    ],
)
def test_what_cannot_be_measured(trained: Path, tmp_path: Path, options: dict, words: str):
    settings = {"runs": {"flow": [str(trained)]}, "reference": "real.npz", "features": PixelFeatures(), **options}
    with pytest.raises(ConfigError, match=words):
        steps(str(tmp_path / "out"), device="cpu", **settings)
    assert not (tmp_path / "out").exists()
