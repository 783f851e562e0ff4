"""The features of a classifier that was trained by `framework fit`."""

import torch
from jaxtyping import Float
from torch import Tensor

from framework.core.errors import DataError
from framework.core.shapes import Images
from framework.evaluation.classifier import load_classifier
from framework.evaluation.features.network import FeatureNetwork, Features, Pixels
from framework.evaluation.samples import SampleSet, dequantize_images
from framework.evaluation.vision_network import FeatureMap
from framework.tracking.data_identity import class_changes


class ClassifierFeatures(FeatureNetwork):
    """Penultimate features of an `ImageClassifier`; the file says its name.

    Args:
        checkpoint: a Lightning checkpoint of `ClassifierModule`, or a .safetensors file of `save_classifier`.
    """

    def __init__(self, checkpoint: str) -> None:
        super().__init__()
        self.classifier = load_classifier(checkpoint)
        self.name = self.classifier.config.name
        self.channels = self.classifier.config.channels

    def forward(self, images: Pixels) -> Features:
        return self.classifier.features(dequantize_images(images))

    def maps(self, images: Images) -> list[FeatureMap]:
        """What each layer of the trunk gives, of images in [-1, 1]."""
        return list(self.classifier.maps(images))

    def class_logits(self, features: Features) -> Float[Tensor, "sample class"]:
        """What the classifier makes of its features."""
        return self.classifier.head(features)

    @torch.no_grad()
    def labelled_metrics(self, role: str, images: SampleSet, features: Features) -> dict[str, float]:
        """The share in [0, 1] of images whose label the classifier predicts; nothing of images without labels.

        Args:
            role: what the images are, such as samples; stands in the metric's name.
            images: with their labels.
            features: what this network made of them.

        Raises:
            DataError: images whose classes are not those of the classifier.
        """
        if images.labels is None:
            return {}
        ours, theirs = self.classifier.class_names, images.classes
        if ours is not None and theirs is not None and (changes := class_changes(ours, theirs)):
            problem = f"{images.name} has other classes than the classifier was trained on ({'; '.join(changes)})"
            raise DataError(problem, hint="use a classifier that was trained on the same class folders")
        predicted = self.class_logits(features).argmax(dim=1).cpu()
        share = (predicted == torch.from_numpy(images.labels)).float().mean().item()
        return {f"class_accuracy_{role}/{self.name}": share}
