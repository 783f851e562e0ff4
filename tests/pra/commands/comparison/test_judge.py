"""Measures of images of one size; reconstructions in the context of what was decoded before."""

from pathlib import Path

import numpy as np
import pytest
import torch

from framework.core.errors import DataError
from framework.evaluation.distances import frechet_distance
from framework.evaluation.features import PixelFeatures, extract_features
from framework.evaluation.samples import SampleSet
from framework.pra.commands.comparison.judge import Judge, keep_floor, read_floor, reconstruction_l1
from framework.pra.network.patches import patchify, unpatchify
from framework.testing.images import make_image_shards
from framework.testing.models import tiny_batch, tiny_config, tiny_model


def images(seed: int, *, labels: bool = True) -> SampleSet:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (20, 2, 2, 1), dtype=np.uint8)
    return SampleSet(images=pixels, labels=np.arange(20) % 2 if labels else None, name=f"set {seed}")


@pytest.fixture
def judge() -> Judge:
    return Judge(network=PixelFeatures(), training=images(0), reference=images(1))


def test_the_distance_is_that_to_the_held_out_images(judge: Judge):
    found = judge.metrics(images(2), svm_accuracy=False)
    features = [extract_features(PixelFeatures(), images(seed), batch_size=20) for seed in (2, 1)]
    assert found["frechet_distance/pixels"] == pytest.approx(frechet_distance(*features))
    assert set(found) == {"frechet_distance/pixels", "precision/pixels", "recall/pixels"}
    assert judge.metrics(judge.reference, svm_accuracy=False)["frechet_distance/pixels"] == pytest.approx(0, abs=1e-6)


def test_a_machine_tells_classes_where_it_is_asked_to(judge: Judge):
    assert 0 <= judge.metrics(images(2), svm_accuracy=True)["svm_accuracy/samples"] <= 1


def test_the_floor_is_kept_until_its_number_changes(judge: Judge, tmp_path: Path):
    path = tmp_path / "floor.json"
    keep_floor(path, judge, 20)
    features = [extract_features(PixelFeatures(), images(seed), batch_size=20) for seed in (0, 1)]
    found = read_floor(path, 20, None)
    assert found == pytest.approx(frechet_distance(*features))
    path.write_text(path.read_text().replace(str(found), "7.0"))
    keep_floor(path, judge, 20)
    assert read_floor(path, 20, None) == 7.0
    keep_floor(path, judge, 10)
    assert read_floor(path, 10, None) == pytest.approx(judge.floor(10)) != 7.0
    # Of other images or another network, or gone, there is none.
    assert [read_floor(path, 20, None), read_floor(path, 10, "abc"), read_floor(tmp_path / "gone", 10, None)] == [
        None
    ] * 3


def test_chosen_images_are_spread_over_the_set(judge: Judge):
    chosen, labels = judge.training_images(2)
    assert chosen.shape == (2, 1, 2, 2)
    assert labels.tolist() == [0, 1]
    assert torch.equal(chosen[1] * 127.5 + 127.5, torch.from_numpy(judge.training.images[-1]).permute(2, 0, 1).float())
    nameless = Judge(network=PixelFeatures(), training=images(0), reference=images(1, labels=False))
    with pytest.raises(DataError, match="set 1 has no labels"):
        nameless.held_out_images(2)


def test_sets_are_read_at_the_models_size_and_channels(tmp_path: Path):
    make_image_shards(tmp_path, per_class=2, size=8)
    shards = str(tmp_path / "shards")
    judge = Judge.of_shards(PixelFeatures(), shards, shards, tiny_config())
    assert judge.reference.images.shape[1:] == (4, 4, 1)


@torch.no_grad()
def test_reconstruction_by_hand():
    model = tiny_model()
    batch = tiny_batch(model.config)
    tokens = patchify(batch.images, 2)
    states = model.encode(tokens).mean
    first = model.decode(states, model.transformer(tokens, batch.labels))
    second = model.decode(states, model.transformer(first, batch.labels))
    expected = (unpatchify(second, 2, 1) - batch.images).abs().mean().item()
    assert reconstruction_l1(model, batch.images, batch.labels) == pytest.approx(expected, rel=1e-5)
