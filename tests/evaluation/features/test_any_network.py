"""Any network by its import path: features, places, maps, and whose classes it judges."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from framework.core.errors import ConfigError
from framework.evaluation.features import NetworkFeatures
from framework.evaluation.features.network import extract_features, extract_with_spatial
from framework.evaluation.samples import SampleSet

HERE = "tests.evaluation.features.test_any_network"


def brightness(channels: int = 3, classes: int = 4) -> nn.Module:
    """Tells classes by brightness alone."""
    network = nn.Sequential(nn.Conv2d(channels, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, classes))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).expand_as(network[0].weight) / channels)
        network[0].bias.zero_()
        # The higher the number, the brighter.
        network[3].weight.copy_(torch.stack([torch.linspace(-1, 1, classes), torch.zeros(classes)], dim=1))
        network[3].bias.copy_(-(torch.linspace(-1, 1, classes) ** 2) / 2)
    return network


def made(**options: Any) -> NetworkFeatures:
    return NetworkFeatures(f"{HERE}:brightness", size=None, mean=(0.5,) * 3, std=(0.5,) * 3, **options)


def images(levels: list[int], labels: list[int], classes: tuple[str, ...] | None) -> SampleSet:
    pixels = np.array(levels, np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2).repeat(3, 3)
    return SampleSet(images=pixels, labels=np.array(labels), classes=classes, name="grays")


def test_features_and_places_of_a_set():
    network, photos = made(name="gray"), images([0, 255], [0, 1], None)
    assert (network.name, network.channels, network.distance_name) == ("gray", 3, "frechet_distance/gray")
    assert extract_features(network, photos, batch_size=1).tolist() == [[-1, 1], [1, -1]]
    both = extract_with_spatial(network, photos, batch_size=2)
    assert both.features.tolist() == [[-1, 1], [1, -1]]
    assert both.spatial is not None
    assert both.spatial.shape == (2, 2 * 16)


def test_gray_images_have_maps_in_a_network_of_colours():
    (found,) = made().maps(torch.zeros(2, 1, 4, 4))
    assert found.shape == (2, 2, 4, 4)


def test_it_judges_classes_by_their_names_among_those_of_the_images(tmp_path: Path):
    (tmp_path / "names.txt").write_text("black\ngray\nsilver\nwhite\n")
    network = made(class_names=str(tmp_path / "names.txt"))
    photos = images([0, 255, 0], [1, 0, 0], ("white", "black"))
    features = extract_features(network, photos, batch_size=3)
    # The last is black and labelled white.
    assert network.labelled_metrics("samples", photos, features) == {
        "class_accuracy_samples/brightness": pytest.approx(2 / 3)
    }
    # Mid-gray is not among the classes of the images: it is given to the nearer of the two.
    other = images([140], [0], ("white", "black"))
    assert network.labelled_metrics("samples", other, extract_features(network, other, batch_size=1)) == {
        "class_accuracy_samples/brightness": 1.0
    }


@pytest.mark.parametrize("classes", [("white", "mauve"), None])
def test_it_judges_no_classes_that_it_does_not_know(tmp_path: Path, classes: tuple[str, ...] | None):
    (tmp_path / "names.txt").write_text("black\ngray\nsilver\nwhite\n")
    network = made(class_names=str(tmp_path / "names.txt"))
    photos = images([0, 255], [0, 1], classes)
    assert network.labelled_metrics("samples", photos, extract_features(network, photos, batch_size=2)) == {}


def test_without_names_its_classes_are_those_of_the_images_where_there_are_as_many():
    photos = images([0, 255], [0, 3], ("a", "b", "c", "d"))
    features = extract_features(made(), photos, batch_size=2)
    assert made().labelled_metrics("samples", photos, features) == {"class_accuracy_samples/brightness": 1.0}
    fewer = images([0, 255], [0, 1], ("a", "b"))
    assert made().labelled_metrics("samples", fewer, features) == {}


def test_weights_are_read_into_it(tmp_path: Path):
    state = brightness().state_dict()
    state["3.bias"] = torch.full((4,), 7.0)
    torch.save(state, tmp_path / "weights.pth")
    network = made(weights=str(tmp_path / "weights.pth"))
    assert network.vision.head.bias.tolist() == [7.0] * 4


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        (f"{HERE}:nothing", {}, "cannot be imported"),
        (f"{HERE}:images", {"arguments": {"levels": [0], "labels": [0], "classes": None}}, "gives a SampleSet"),
        (f"{HERE}:brightness", {"arguments": {"colours": 3}}, "cannot be called so"),
    ],
)
def test_what_is_no_network_is_refused(path: str, options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        NetworkFeatures(path, **options)


def test_names_must_be_as_many_as_logits(tmp_path: Path):
    (tmp_path / "names.txt").write_text("black\nwhite\n")
    with pytest.raises(ConfigError, match=r"names.txt names 2 classes, the network tells 4"):
        made(class_names=str(tmp_path / "names.txt"))
