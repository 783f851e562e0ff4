"""A classifier's features and what it tells of labelled images."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from framework.core.errors import DataError
from framework.evaluation.classifier import ClassifierConfig, ImageClassifier, save_classifier
from framework.evaluation.features import ClassifierFeatures, extract_features
from framework.evaluation.samples import SampleSet, dequantize_images


@pytest.fixture
def network(tmp_path) -> ClassifierFeatures:
    torch.manual_seed(0)
    config = ClassifierConfig(num_classes=3, channels=1, width=8, name="three")
    save_classifier(tmp_path / "three.safetensors", ImageClassifier(config))
    return ClassifierFeatures(str(tmp_path / "three.safetensors"))


@pytest.fixture
def images() -> SampleSet:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8)
    return SampleSet(images=pixels, labels=np.array([0, 1, 2, 0, 1, 2]))


def test_features_are_the_classifiers_penultimate_layer(network: ClassifierFeatures, images: SampleSet):
    assert (network.name, network.channels, network.distance_name) == ("three", 1, "frechet_distance/three")
    features = extract_features(network, images, batch_size=6)
    with torch.no_grad():
        expected = network.classifier.features(dequantize_images(images.pixels(0, 6)))
        logits = network.classifier(dequantize_images(images.pixels(0, 6)))
    assert torch.equal(features, expected)
    assert torch.equal(network.class_logits(features), logits)


def test_the_class_accuracy_by_hand(network: ClassifierFeatures, images: SampleSet):
    features = extract_features(network, images, batch_size=6)
    # Logits that are the first three features: each image's class is the largest of them.
    head = network.classifier.head
    with torch.no_grad():
        head.weight.copy_(torch.eye(3, 32))
        head.bias.zero_()
    wanted = torch.tensor([0, 1, 2, 1, 1, 0])
    features[:, :3] = torch.nn.functional.one_hot(wanted, 3).float()
    # Right for images 0, 1, 2 and 4 of six.
    assert network.labelled_metrics("samples", images, features) == {
        "class_accuracy_samples/three": pytest.approx(4 / 6)
    }
    assert network.labelled_metrics("samples", SampleSet(images=images.images), features) == {}


def test_classes_of_other_numbers_are_refused(tmp_path, images: SampleSet):
    config = ClassifierConfig(num_classes=3, channels=1, width=8)
    save_classifier(tmp_path / "named.safetensors", ImageClassifier(config, ("a", "b", "c")))
    network = ClassifierFeatures(str(tmp_path / "named.safetensors"))
    assert network.classifier.class_names == ("a", "b", "c")
    features = extract_features(network, images, batch_size=6)
    assert network.labelled_metrics("samples", replace(images, classes=("a", "b", "c")), features)
    with pytest.raises(DataError, match=r"other classes than the classifier was trained on .*'a' was class 0 and is 1"):
        network.labelled_metrics("samples", replace(images, classes=("b", "a", "c")), features)
