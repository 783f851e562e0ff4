"""A perceptual distance in the activations of a frozen network."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from framework.core.shapes import Images
from framework.evaluation.classifier import load_classifier
from framework.evaluation.features.network import FeatureNetwork
from framework.evaluation.vision_network import FeatureMap


class PerceptualDistance(nn.Module):
    """`map_distance` in the activations of a frozen network, which `maps` gives."""

    def maps(self, images: Images) -> Iterable[FeatureMap]:
        """Activations of images in [-1, 1], from fine to coarse."""
        raise NotImplementedError

    def forward(self, images: Images, reference: Images) -> Float[Tensor, ""]:
        """Mean distance of images in [-1, 1] to their references; differentiable in `images`."""
        with torch.no_grad():
            targets = list(self.maps(reference))
        return map_distance(self.maps(images), targets)


class ClassifierDistance(PerceptualDistance):
    """The distance in a trained `ImageClassifier`.

    Args:
        checkpoint: a checkpoint of `ClassifierModule` or a file of `save_classifier`.
    """

    def __init__(self, checkpoint: str) -> None:
        super().__init__()
        self.classifier = load_classifier(checkpoint).requires_grad_(False).eval()

    def maps(self, images: Images) -> Iterable[FeatureMap]:
        """What each layer of the trunk gives."""
        return self.classifier.maps(images)


class NetworkDistance(PerceptualDistance):
    """The distance in any feature network that gives maps.

    Args:
        network: such as `NetworkFeatures` or `TimmFeatures`.
    """

    def __init__(self, network: FeatureNetwork) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()

    def maps(self, images: Images) -> Iterable[FeatureMap]:
        """What the network's `maps` gives."""
        return self.network.maps(images)


def map_distance(maps: Iterable[FeatureMap], targets: Iterable[FeatureMap]) -> Float[Tensor, ""]:
    """Squared distance of activations that are normalised over channels, a mean over places and then over maps.

    LPIPS (Zhang et al. 2018) without its learned weights; the network is the user's (ours).
    """
    distances = [
        (F.normalize(ours, dim=1) - F.normalize(theirs, dim=1)).square().sum(1).mean()
        for ours, theirs in zip(maps, targets, strict=True)
    ]
    return torch.stack(distances).mean()
