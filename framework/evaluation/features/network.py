"""What every feature network is, and the features of a whole set of images."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from framework.core.console import tracked
from framework.core.errors import ConfigError, DataError
from framework.core.shapes import Images
from framework.evaluation.samples import SampleSet
from framework.evaluation.vision_network import FeatureMap

Features = Float[Tensor, "sample feature"]
SpatialFeatures = Float[Tensor, "sample place"]
Pixels = UInt8[Tensor, "sample channel height width"]


class FeatureNetwork(nn.Module, ABC):
    """Base of every feature network: subclass it and give its class path to use your own.

    Attributes:
        name: part of every metric's name, such as `frechet_distance/pixels`.
        channels: image channels that it takes, or None for any.
        takes_statistics: whether `mu` and `sigma` of ADM's reference batches are of these features.
    """

    name: str
    channels: int | None = None
    takes_statistics: bool = False

    @property
    def distance_name(self) -> str:
        """The metric that the Fréchet distance in these features is."""
        return f"frechet_distance/{self.name}"

    @property
    def spatial_distance_name(self) -> str:
        """The metric that the Fréchet distance in features of places is."""
        return f"spatial_frechet_distance/{self.name}"

    @property
    def kernel_distance_name(self) -> str:
        """The metric that the kernel distance in these features is."""
        return f"kernel_distance/{self.name}"

    @abstractmethod
    def forward(self, images: Pixels) -> Features:
        """The features of images, 0 to 255."""

    def with_spatial(self, images: Pixels) -> tuple[Features, SpatialFeatures | None]:
        """The features, and features of places: some channels of a map; None of a network that gives no map."""
        return self(images), None

    def maps(self, images: Images) -> list[FeatureMap]:
        """Activations of images in [-1, 1] for a perceptual distance, differentiable; from fine to coarse.

        Raises:
            ConfigError: this network gives none.
        """
        raise ConfigError(f"{self.name} has no maps", hint="take a network such as NetworkFeatures or TimmFeatures")

    def sample_metrics(self, features: Features) -> dict[str, float]:
        """What else this network tells of the samples alone, by metric; nothing unless it says so."""
        return {}

    def labelled_metrics(self, role: str, images: SampleSet, features: Features) -> dict[str, float]:
        """What else this network tells of images with labels, by metric; nothing unless it says so.

        Args:
            role: `samples` or `reference`, part of the metric's name.
            images: with labels or without.
            features: theirs.
        """
        return {}


@dataclass(frozen=True, kw_only=True)
class SetFeatures:
    """Features of a set, and those of places, where the network gives them."""

    features: Features
    spatial: SpatialFeatures | None


def extract_features(network: FeatureNetwork, samples: SampleSet, *, batch_size: int) -> Features:
    """The features of a whole set; arguments and errors are those of `extract_with_spatial`.

    Args:
        network: is put into evaluation mode.
        samples: images of as many channels as it takes.
        batch_size: images of a forward pass, 1 or more.
    """
    return _extract(network, samples, batch_size, spatial=False).features


def extract_with_spatial(network: FeatureNetwork, samples: SampleSet, *, batch_size: int) -> SetFeatures:
    """Features of a whole set and of places, on the network's device, where the forward passes run too.

    Args:
        network: is put into evaluation mode.
        samples: images of as many channels as it takes.
        batch_size: images of a forward pass, 1 or more.

    Raises:
        ConfigError: a batch size below 1.
        DataError: features that are not finite.
    """
    return _extract(network, samples, batch_size, spatial=True)


@torch.no_grad()
def _extract(network: FeatureNetwork, samples: SampleSet, batch_size: int, *, spatial: bool) -> SetFeatures:
    if batch_size < 1:
        raise ConfigError(f"batch size {batch_size}", hint="give 1 or more")
    network.eval()
    parameter = next(network.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    batches = [range(len(samples))[start : start + batch_size] for start in range(0, len(samples), batch_size)]
    description = f"{network.name} features of {samples.name}"
    kept: list[Features] = []
    places: list[SpatialFeatures] = []
    for batch in tracked(batches, description, total=len(samples), images=len):
        pixels = samples.pixels(batch.start, batch.stop).to(device)
        features, found = network.with_spatial(pixels) if spatial else (network(pixels), None)
        kept.append(features)
        places += [] if found is None else [found]
    features = torch.cat(kept)
    if not torch.isfinite(features).all():
        raise DataError(
            f"{network.name} gives features of {samples.name} that are not finite", hint="check its weights"
        )
    return SetFeatures(features=features, spatial=torch.cat(places) if places else None)
