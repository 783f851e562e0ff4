"""The command `sample`: an .npz, a grid, and images that are a function of the seed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from framework.core.errors import ConfigError
from framework.evaluation.samples import SampleSet, read_npz
from framework.pra.checkpoint import load_pra
from framework.pra.commands.sample import sample
from framework.pra.generate import generate
from framework.pra.sampling import SamplerConfig

SAMPLER = SamplerConfig(steps=2)


@pytest.mark.slow
def test_samples_are_those_of_the_averaged_weights(trained: Path, tmp_path: Path):
    out = tmp_path / "deep" / "samples.npz"
    sample(str(trained), str(out), num=7, classes=[2, 0], seed=3, batch_size=4, device="cpu", sampler=SAMPLER)
    found = read_npz(out)
    images = torch.cat(list(generate(load_pra(trained), [2, 0] * 3 + [2], seed=3, sampler=SAMPLER)))
    assert found.labels is not None
    assert found.labels.tolist() == [2, 0, 2, 0, 2, 0, 2]
    assert np.array_equal(found.images, SampleSet.from_images(images).with_channels(3).images)
    # Two columns of 64 pixels in gaps, and four rows.
    with Image.open(out.with_suffix(".png")) as grid:
        assert grid.size == (2 * 68, 4 * 68)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num": 0}, "num 0, batch_size 256: use 1 or more"),
        ({"num": 1, "batch_size": 0}, "num 1, batch_size 0"),
        ({"num": 1, "classes": [3]}, "class 3 is out of range: use classes 0 to 2"),
        ({"num": 1, "device": "nothing"}, "device 'nothing' cannot be used"),
    ],
)
def test_what_cannot_be_sampled(trained: Path, tmp_path: Path, options: dict, words: str):
    with pytest.raises(ConfigError, match=words):
        sample(str(trained), str(tmp_path / "samples.npz"), sampler=SAMPLER, **{"device": "cpu", **options})
    assert list(tmp_path.iterdir()) == []
