"""What is measured of a trained part; the command itself is in `test_compare`."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from framework.core.errors import CheckpointError
from framework.evaluation.features import PixelFeatures
from framework.evaluation.samples import SampleSet
from framework.pra.commands.comparison.judge import Judge
from framework.pra.commands.comparison.measurement import measure_part
from framework.pra.commands.comparison.parts import Part, num_parameters
from framework.pra.commands.comparison.training import checkpoint_at
from framework.pra.loss import ObjectiveConfig
from framework.testing.faults import make_checkpoint
from framework.testing.models import tiny_config, tiny_model
from tests.pra.commands.comparison.test_protocol import PROTOCOL

CPU = torch.device("cpu")
PROTOCOL_OF_STEPS = replace(PROTOCOL, options=(), guidance=(1.5,), training_steps=(3, 5))


@pytest.fixture
def judge() -> Judge:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 1), dtype=np.uint8)
    images = SampleSet(images=pixels, labels=np.arange(12) % 3, name="images")
    return Judge(network=PixelFeatures(), training=images, reference=images)


@pytest.mark.slow
def test_a_part_is_measured_at_a_checkpoint_of_its_way(judge: Judge, tmp_path: Path):
    for seed, steps in enumerate((3, 5)):
        tensors = {f"ema.{name}": tensor for name, tensor in tiny_model(seed).state_dict().items()}
        state = {"architecture": asdict(tiny_config()), "objective": asdict(ObjectiveConfig())}
        make_checkpoint(checkpoint_at(tmp_path, steps), tensors, state, step=steps)
    part = Part(architecture=tiny_config(), seed=7)
    first, last = (measure_part(part, tmp_path, judge, PROTOCOL_OF_STEPS, CPU, steps) for steps in (3, 5))
    assert (first.training_steps, first.seed, first.token_size) == (3, 7, 4)
    assert first.num_parameters == num_parameters(tiny_config())
    assert first.settings == PROTOCOL_OF_STEPS.settings
    assert set(first.metrics) == {"1", "1.5"}
    assert first.distance("1") != last.distance("1")
    for name in ("guidance-1.npz", "guidance-1.5.png"):
        assert (tmp_path / "measured-3" / name).is_file()
    # The end of a recipe that ended earlier is not the newest checkpoint.
    end = measure_part(part, tmp_path, judge, replace(PROTOCOL_OF_STEPS, training_steps=(), recipe_steps=3), CPU, None)
    assert end.metrics == first.metrics


def test_what_was_not_kept_leaves_nothing(judge: Judge, tmp_path: Path):
    with pytest.raises(CheckpointError, match="kept no checkpoint after 4 steps"):
        measure_part(Part(architecture=tiny_config(), seed=0), tmp_path, judge, PROTOCOL_OF_STEPS, CPU, 4)
    assert not any(tmp_path.iterdir())
