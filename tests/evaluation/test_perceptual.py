import pytest
import torch

from framework.core.errors import CheckpointError, ConfigError
from framework.evaluation.classifier import ClassifierConfig, ImageClassifier, save_classifier
from framework.evaluation.features import ClassifierFeatures, PixelFeatures
from framework.evaluation.perceptual import ClassifierDistance, NetworkDistance


@pytest.fixture
def distance(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "classifier.safetensors"
    save_classifier(path, ImageClassifier(ClassifierConfig(num_classes=3, channels=1, width=8)))
    return ClassifierDistance(str(path))


def test_equal_images_are_at_no_distance_and_noise_moves_away(distance):
    images = torch.rand(2, 1, 8, 8) * 2 - 1
    assert distance(images, images).item() == 0
    noise = torch.randn_like(images)
    near, far = (distance(images + scale * noise, images).item() for scale in (0.1, 1.0))
    assert 0 < near < far


def test_the_gradient_reaches_the_images_and_not_the_network(distance):
    images = (torch.rand(2, 1, 8, 8) * 2 - 1).requires_grad_()
    distance(images, torch.zeros_like(images)).backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in distance.parameters())


def test_a_missing_network_is_named():
    with pytest.raises(CheckpointError, match="nowhere"):
        ClassifierDistance("nowhere.safetensors")


def test_any_network_that_gives_maps_serves(distance, tmp_path):
    save_classifier(tmp_path / "same.safetensors", distance.classifier)
    network = NetworkDistance(ClassifierFeatures(str(tmp_path / "same.safetensors")))
    images, reference = torch.rand(2, 2, 1, 8, 8) * 2 - 1
    assert network(images, reference).item() == pytest.approx(distance(images, reference).item(), rel=1e-6)
    images.requires_grad_()
    network(images, reference).backward()
    assert images.grad is not None
    assert images.grad.any()
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_network_without_maps_is_refused():
    with pytest.raises(ConfigError, match="pixels has no maps"):
        NetworkDistance(PixelFeatures())(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))
