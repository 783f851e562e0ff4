"""Every network of the package, and what the base class promises."""

from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

import framework.evaluation.features as package
from framework.core.errors import ConfigError, DataError
from framework.evaluation.features import FeatureNetwork, PixelFeatures, extract_features
from framework.evaluation.samples import SampleSet

NETWORKS = [
    kind
    for kind in map(package.__dict__.__getitem__, package.__all__)
    if isinstance(kind, type) and kind is not FeatureNetwork
]


def parsed(*options: str) -> object:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=FeatureNetwork)
    return parser.parse_args(options).network


@pytest.mark.parametrize("network", NETWORKS)
def test_the_command_line_knows_every_network_by_its_name(network: type[FeatureNetwork]):
    needed = {"ClassifierFeatures": "checkpoint", "NetworkFeatures": "network", "TimmFeatures": "model"}
    option = needed.get(network.__name__)
    options = [f"--network.{option}", "x"] if option else []
    found = parsed(f"--network={network.__name__}", *options)
    assert found.class_path == f"{package.__name__}.{network.__name__}"


def test_every_file_of_the_package_is_a_network_with_a_name_in_it():
    files = {network.__module__.rpartition(".")[2] for network in NETWORKS}
    found = {path.stem for path in Path(package.__path__[0]).glob("*.py")}
    assert found == files | {"__init__", "network"}


def test_a_recipe_names_any_network_by_class_path():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=FeatureNetwork)
    config = parser.parse_args(["--network=framework.evaluation.features.PixelFeatures"])
    assert isinstance(parser.instantiate(config).network, PixelFeatures)


def test_a_network_says_nothing_but_its_distance_unless_it_is_told_to():
    network, images = PixelFeatures(), SampleSet(images=np.zeros((2, 8, 8, 1), np.uint8), labels=np.zeros(2, np.int64))
    features = extract_features(network, images, batch_size=2)
    assert network.distance_name == "frechet_distance/pixels"
    assert network.sample_metrics(features) == {}
    assert network.labelled_metrics("samples", images, features) == {}


def test_features_do_not_depend_on_the_batch_size():
    images = SampleSet(images=np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), np.uint8))
    whole = extract_features(PixelFeatures(), images, batch_size=7)
    assert torch.equal(extract_features(PixelFeatures(), images, batch_size=3), whole)
    with pytest.raises(ConfigError, match="batch size 0"):
        extract_features(PixelFeatures(), images, batch_size=0)


def test_features_that_are_not_finite_are_refused():
    class Broken(FeatureNetwork):
        name = "broken"

        def forward(self, images):
            return torch.full((len(images), 4), torch.nan)

    with pytest.raises(DataError, match="broken gives features"):
        extract_features(Broken(), SampleSet(images=np.zeros((2, 8, 8, 3), np.uint8)), batch_size=2)
