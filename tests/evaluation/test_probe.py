"""Probes: features with a known answer, intervals against known values, and the picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from framework.core.errors import ConfigError, DataError
from framework.evaluation.probe import Accuracy, FeatureSet, ProbeConfig, Solver, curve_over_depth, probe_features


def clusters(count: int, *, spread: float, seed: int, classes: int = 3) -> FeatureSet:
    """Classes in turn, around points that lie far apart, at scales that differ by a thousand."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centres = 2.0 * torch.eye(classes, 5)
    features = centres[labels] + spread * torch.randn(count, 5, generator=generator)
    return FeatureSet(features=features * torch.tensor([1.0, 1000.0, 1.0, 0.001, 1.0]), labels=labels)


@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
def test_classes_that_lie_apart_are_told_apart(solver: Solver):
    config = ProbeConfig(solver=solver, epochs=5, batch_size=30, neighbours=3)
    found = probe_features(clusters(90, spread=0.1, seed=0), clusters(30, spread=0.1, seed=1), config)
    assert found.linear.value == 1
    assert found.neighbours is not None
    assert found.neighbours.value == 1
    assert (found.penalty is None) == (solver == "sgd")


def test_labels_without_a_pattern_are_guessed_at_chance():
    training, test = clusters(600, spread=0.1, seed=0), clusters(300, spread=0.1, seed=1)
    shuffled = FeatureSet(
        features=training.features,
        labels=training.labels[torch.randperm(600, generator=torch.Generator().manual_seed(2))],
    )
    found = probe_features(shuffled, test, ProbeConfig(neighbours=0))
    assert found.neighbours is None
    assert found.linear.low < 0.5


def test_of_many_noisy_features_a_strong_penalty_is_chosen():
    generator = torch.Generator().manual_seed(0)

    def noisy(count: int) -> FeatureSet:
        labels = torch.arange(count) % 2
        features = torch.randn(count, 300, generator=generator)
        features[:, 0] += 2.0 * labels
        return FeatureSet(features=features, labels=labels)

    found = probe_features(noisy(500), noisy(200), ProbeConfig(neighbours=0))
    assert found.penalty == 0.01


def test_the_vote_weighs_the_nearest_most():
    # Two samples of class 1 lie near, one of class 0 lies where the test sample is.
    training = FeatureSet(
        features=torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0], [-5.0, -2.0]]), labels=torch.tensor([0, 1, 1, 1])
    )
    test = FeatureSet(features=torch.tensor([[1.0, 0.0]]), labels=torch.tensor([0]))
    found = probe_features(training, test, ProbeConfig(neighbours=3))
    assert found.neighbours is not None
    assert found.neighbours.value == 1


def test_wilson_s_interval():
    # 8 of 10 by Wilson (1927): 0.4902 to 0.9433.
    found = Accuracy.of(np.array([True] * 8 + [False] * 2))
    assert (found.value, round(found.low, 4), round(found.high, 4)) == (0.8, 0.4902, 0.9433)
    assert str(found) == "80.0 % (49.0 to 94.3)"


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (torch.ones(4, 2), torch.zeros(4, dtype=torch.long), "two classes"),
        (torch.tensor([[1.0], [float("nan")]]), torch.tensor([0, 1]), "not finite"),
    ],
)
def test_features_that_give_no_probe(features: Tensor, labels: Tensor, message: str):
    given = FeatureSet(features=features, labels=labels)
    with pytest.raises(DataError, match=message):
        probe_features(given, given)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs 0"),
        ({"learning_rate": 0.0}, "learning_rate 0.0"),
        ({"neighbours": -1}, "neighbours -1"),
    ],
)
def test_a_probe_that_cannot_be(settings: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        ProbeConfig(**settings)  # pyright: ignore[reportArgumentType]


def test_the_picture(tmp_path: Path):
    accuracy = Accuracy.of(np.array([True, False, True]))
    curve_over_depth(str(tmp_path / "a.png"), {"trained": [(0, accuracy), (1, accuracy)]}, accuracy)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (600, 400)
