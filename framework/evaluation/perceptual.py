"""A perceptual distance in the features of a trained classifier."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from framework.core.shapes import Images
from framework.evaluation.classifier import load_classifier

_Map = Float[Tensor, "batch feature row column"]


class ClassifierDistance(nn.Module):
    """Squared distance of channel-normalised features, averaged over the stages of a frozen `ImageClassifier`.

    LPIPS (Zhang et al. 2018) without its learned weights; the network is the user's (ours).

    Args:
        checkpoint: a checkpoint of `ClassifierModule` or a file of `save_classifier`.
    """

    def __init__(self, checkpoint: str) -> None:
        super().__init__()
        self.classifier = load_classifier(checkpoint).requires_grad_(False).eval()

    def forward(self, images: Images, reference: Images) -> Float[Tensor, ""]:
        """Mean distance of images in [-1, 1] to their references; differentiable in `images`."""
        distances: list[Float[Tensor, ""]] = []
        with torch.no_grad():
            targets = list(self._stages(reference))
        for features, target in zip(self._stages(images), targets, strict=True):
            distances.append((features - target).square().sum(1).mean())
        return torch.stack(distances).mean()

    def _stages(self, x: Float[Tensor, "batch channel row column"]) -> Iterator[_Map]:
        for layer in self.classifier.trunk:
            x = layer(x)
            yield F.normalize(x, dim=1)
