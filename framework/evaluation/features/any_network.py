"""The features of any network, by its import path and a file of its weights."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from framework.core.errors import ConfigError, FrameworkError
from framework.core.imports import import_object, look_in_current_folder
from framework.core.shapes import Images
from framework.evaluation.features.network import FeatureNetwork, Features, Pixels, SpatialFeatures
from framework.evaluation.samples import SampleSet, dequantize_images
from framework.evaluation.vision_network import (
    FeatureMap,
    Preprocessing,
    VisionNetwork,
    load_weights,
    read_class_names,
)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class NetworkFeatures(FeatureNetwork):
    """What the last layer of a network reads; its maps, and its judgement of classes.

    Args:
        network: import path of what makes it, a class or a function, such as `torchvision.models:resnet50`; modules of
            the current folder are found too.
        weights: file of its weights: .safetensors, or tensors by name that `torch.save` wrote. None for the weights
            that `network` makes.
        arguments: what `network` is called with.
        size: side in pixels that images are resized to (bicubic, smoothed); null leaves them as they are.
        mean: of each channel of values in [0, 1]; ImageNet's by default.
        std: of each channel.
        head: qualified name of the layer that gives the logits; by default the last linear one.
        class_names: text file with a name a line, in the order of the logits, such as those of the folders of images;
            None where its classes are those of the images, in their order.
        name: in the names of metrics; by default the last part of the import path.

    Raises:
        ConfigError: nothing to import there, or not a network.
        CheckpointError: the weights are missing, damaged or of another network.
    """

    def __init__(
        self,
        network: str,
        weights: str | None = None,
        *,
        arguments: dict[str, Any] | None = None,
        size: int | None = 224,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        head: str | None = None,
        class_names: str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__()
        look_in_current_folder()
        made = _made(network, arguments or {})
        if weights is not None:
            load_weights(made, weights)
        self.name = name or network.replace(":", ".").rpartition(".")[2]
        self._open(made, Preprocessing(size=size, mean=tuple(mean), std=tuple(std)), head, class_names)

    def _open(self, network: nn.Module, preprocessing: Preprocessing, head: str | None, names: str | None) -> None:
        """Takes a network.

        Args:
            network: with its weights.
            preprocessing: of its images.
            head: name of the layer that gives the logits.
            names: file of its classes' names.
        """
        self.vision = VisionNetwork(network, preprocessing, head=head)
        self.channels = len(preprocessing.mean)
        self.class_names = None if names is None else read_class_names(names)
        if self.class_names is not None and len(self.class_names) != self.vision.num_classes:
            problem = f"{names} names {len(self.class_names)} classes, the network tells {self.vision.num_classes}"
            raise ConfigError(problem, hint="give a line for each of its logits, in their order")

    def forward(self, images: Pixels) -> Features:
        return self.vision.features(dequantize_images(images))

    def with_spatial(self, images: Pixels) -> tuple[Features, SpatialFeatures | None]:
        """Features, and those of places."""
        return self.vision.features_and_spatial(dequantize_images(images))

    def maps(self, images: Images) -> list[FeatureMap]:
        """Activations of images in [-1, 1], from fine to coarse; gray images are repeated."""
        return self.vision.maps(images.expand(-1, self.channels or -1, -1, -1))

    def class_logits(self, features: Features) -> Float[Tensor, "sample class"]:
        """What the last layer makes of its features."""
        return self.vision.head(features)

    @torch.no_grad()
    def labelled_metrics(self, role: str, images: SampleSet, features: Features) -> dict[str, float]:
        """The share in [0, 1] of images whose class the network puts first; nothing where it does not know the classes.

        Args:
            role: what the images are, such as samples; stands in the metric's name.
            images: with their labels.
            features: what this network made of them.
        """
        order = self._logits_of(images)
        if images.labels is None or order is None:
            return {}
        # Among the classes of the images alone: it may tell many more.
        predicted = self.class_logits(features)[:, order].argmax(dim=1).cpu()
        share = (predicted == torch.from_numpy(images.labels)).float().mean().item()
        return {f"class_accuracy_{role}/{self.name}": share}

    def _logits_of(self, images: SampleSet) -> list[int] | None:
        """The number of the logit of each class of the images; None where one is not known."""
        if self.class_names is None:
            num = self.vision.num_classes
            same = images.classes is not None and len(images.classes) == num
            return list(range(num)) if same else None
        numbers = {name: number for number, name in enumerate(self.class_names)}
        if images.classes is None or any(name not in numbers for name in images.classes):
            return None
        return [numbers[name] for name in images.classes]


def _made(path: str, arguments: dict[str, Any]) -> nn.Module:
    try:
        made = import_object(path)(**arguments)
    except FrameworkError:
        raise
    except Exception as error:
        problem = f"{path} cannot be called so ({type(error).__name__}: {error})"
        raise ConfigError(problem, hint="give what it needs as arguments") from error
    if not isinstance(made, nn.Module):
        raise ConfigError(f"{path} gives a {type(made).__name__}", hint="give what makes a torch.nn.Module")
    return made
