"""What the parts measure, on a CPU and in a rehearsal's sizes: figures belong together, floors are those by hand."""

import io
import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from framework.bench.gpu.cifar import made_pictures, read_zip
from framework.bench.gpu.sampling import floor
from framework.bench.gpu.saves import save_twice
from framework.bench.gpu.session import Session, read_lines
from framework.bench.gpu.shapes import CIFAR, PRA_L, PRA_S, TINY, BareLoop, made_batch
from framework.bench.gpu.step import measure_step
from framework.core.seeding import seed_of
from framework.pra.loss import ObjectiveConfig, draw_training_noise, training_losses
from framework.pra.network.config import PRAConfig
from framework.pra.noise import SampleNoise
from framework.pra.planning.flops import training_flops_per_image

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


@pytest.mark.slow
def test_figures_of_a_step_belong_together(session: Session):
    found = measure_step(session, TINY, 2, 1e9)
    flops = training_flops_per_image(TINY, ObjectiveConfig())[1] * 2
    assert found["images_per_second"] == pytest.approx(2000 / found["step_ms"])
    assert found["mfu_of_measured_peak"] == pytest.approx(flops / (found["step_ms"] / 1000) / 1e9)
    assert found["peak_gib"] is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_saves_and_a_run_that_goes_on(session: Session):
    save_twice(session)
    saved, went_on = read_lines(session.folder)
    assert (saved["name"], went_on["name"]) == ("asynchronous saves", "a run that goes on")
    assert (len(saved["stalls_s"]), len(went_on["stalls_s"])) == (3, 1), (saved, went_on)
    assert all(a <= b for a, b in zip(saved["stalls_s"], saved["complete_after_s"], strict=True))


def test_the_floor_of_sampling_by_hand():
    found = floor(TINY, num_images=10, steps=3)
    # Head: 4 -> 32, context 32 -> 32, times 256 -> 32 -> 32, a block of 96 + 32 + 32 rows, modulation 64, 32 -> 4.
    head = 4 * 32 + 32 * 32 + (256 + 32) * 32 + 160 * 32 + 64 * 32 + 32 * 4
    # Of the transformer the class embedding and slots count too, which is nothing beside the rest of large models.
    assert found["tflop"] > 2 * 4 * 10 * 3 * head / 1e12
    assert found["cache_gb"] == pytest.approx(2 * 2 * 2 * 32 * 10 * 4 * 4 / 2 / 1e9)


def test_pictures_of_a_zip(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "small.zip", "w") as archive:
        for number in range(6):
            stream = io.BytesIO()
            Image.fromarray(np.full((32, 32, 3), 40 * number, np.uint8)).save(stream, format="JPEG", quality=100)
            archive.writestr(f"train/{'ab'[number % 2]}/{number}.jpg", stream.getvalue())
    found = read_zip(tmp_path / "small.zip", "train", torch.device("cpu"), 4)
    assert found.pixels.shape == (4, 3, 32, 32)
    # By name: a/0, a/2, a/4, b/1, b/3, b/5, of which every sixth times four.
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert [round(each.float().mean().item() / 40) for each in found.pixels] == [0, 2, 1, 3]


def test_batches_are_random_pictures_in_range():
    pictures = made_pictures(20, 8, torch.device("cpu"), seed=0)
    images, labels = next(pictures.batches(50, seed=0))
    assert images.shape == (50, 3, 8, 8)
    assert images.min() >= -1
    assert images.max() <= 1
    brightness = (images.mean(dim=(1, 2, 3)) + 1) * 127.5
    assert torch.equal(((brightness - 12) / 23).round().long(), labels)
