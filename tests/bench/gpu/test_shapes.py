"""The models are those of the recipes, and a bare step is one of training."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml

from framework.bench.gpu.session import Session
from framework.bench.gpu.shapes import CIFAR, PRA_L, PRA_S, TINY, BareLoop, made_batch
from framework.core.random.seeding import seed_of
from framework.pra.loss import ObjectiveConfig, draw_training_noise, training_losses
from framework.pra.network.config import PRAConfig
from framework.pra.noise import SampleNoise

RECIPES = Path(__file__).parents[3] / "recipes" / "pra"


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(part="part", folder=tmp_path, rehearse=True, seconds=100.0, device=torch.device("cpu"))


@pytest.mark.parametrize(("config", "recipe"), [(PRA_L, "imagenet256_l"), (PRA_S, "imagenet256_s"), (CIFAR, "cifar10")])
def test_the_models_are_those_of_the_recipes(config: PRAConfig, recipe: str):
    written = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())["model"]["init_args"]["architecture"]
    assert {each.name: getattr(config, each.name) for each in fields(config) if each.name in written} == written


def test_a_bare_step_has_the_losses_of_training(session: Session):
    loop, batch = BareLoop(session, TINY), made_batch(TINY, 3)
    seeds = [seed_of("bench", 0, number) for number in range(3)]
    noise = draw_training_noise(SampleNoise(seeds, "cpu"), TINY, ObjectiveConfig())
    with torch.autocast("cpu", torch.bfloat16):
        expected = training_losses(loop.model, batch.images, batch.labels, ObjectiveConfig(), noise).total
    before = [parameter.detach().clone() for parameter in loop.model.parameters()]
    torch.testing.assert_close(loop.step(batch.images, batch.labels), expected.detach())
    assert any(not torch.equal(a, b) for a, b in zip(before, loop.model.parameters(), strict=True))
