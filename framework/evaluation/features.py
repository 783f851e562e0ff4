"""Networks whose features the distances are measured in. Only Inception's distance may be called FID."""

from abc import ABC, abstractmethod
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from framework.core.errors import CheckpointError, ConfigError, DataError
from framework.evaluation.classifier import load_classifier
from framework.evaluation.samples import SampleSet, dequantize_images


class FeatureNetwork(nn.Module, ABC):
    """Base of every feature network: subclass it and give its class path to use your own.

    Attributes:
        name: part of every metric's name, such as `frechet_distance/pixels`.
        channels: image channels that it takes, or None for any.
    """

    name: str
    channels: int | None = None

    @abstractmethod
    def forward(self, images: UInt8[Tensor, "sample channel height width"]) -> Float[Tensor, "sample feature"]: ...


class PixelFeatures(FeatureNetwork):
    """The flattened pixels, in [0, 1]: a baseline that needs no weights (ours)."""

    name = "pixels"

    def forward(self, images: UInt8[Tensor, "sample channel height width"]) -> Float[Tensor, "sample feature"]:
        return rearrange(images, "sample channel height width -> sample (channel height width)").float() / 255


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

    def forward(self, images: UInt8[Tensor, "sample channel height width"]) -> Float[Tensor, "sample feature"]:
        return self.classifier.features(dequantize_images(images))

    def class_logits(self, features: Float[Tensor, "sample feature"]) -> Float[Tensor, "sample class"]:
        return self.classifier.head(features)


class InceptionFeatures(FeatureNetwork):
    """The 2,048 pooled features of TensorFlow's 2015 Inception v3, as ported by torch-fidelity.

    Images are resized inside, by TensorFlow 1's bilinear rule, as the original FID (Heusel et al. 2017) does.

    Args:
        weights: the file `weights-inception-2015-12-05-6726825d.pth`; None downloads it, once.

    Raises:
        ConfigError: the extra is not installed, or the download failed.
        CheckpointError: the file is missing or is not these weights.
    """

    name = "inception"
    channels = 3

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        if weights is not None:
            _check_weights(Path(weights))
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import (  # pyright: ignore[reportMissingImports]
                URL_INCEPTION_V3,
                FeatureExtractorInceptionV3,
            )
        # torchvision built for another torch fails on import with a RuntimeError.
        except (ImportError, RuntimeError) as error:
            raise ConfigError(
                f"the Inception network cannot be imported ({error})",
                hint="pip install 'framework[inception]' (torchvision must match torch), or choose another network",
            ) from error
        try:
            self.inception = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], feature_extractor_weights_path=weights
            )
        except OSError as error:  # urllib's errors are OSErrors
            raise ConfigError(
                f"the Inception weights could not be downloaded ({error})",
                hint=f"fetch {URL_INCEPTION_V3} elsewhere and give its path as weights",
            ) from error
        except RuntimeError as error:
            raise CheckpointError(
                f"{weights} does not fit Inception v3 ({str(error).splitlines()[0]})",
                hint=f"use the file of {URL_INCEPTION_V3}",
            ) from error

    def forward(self, images: UInt8[Tensor, "sample channel height width"]) -> Float[Tensor, "sample feature"]:
        return self.inception(images)[0]

    def class_logits(self, features: Float[Tensor, "sample feature"]) -> Float[Tensor, "sample class"]:
        """Logits without the bias, as the original Inception score (Salimans et al. 2016) uses them."""
        return features @ self.inception.fc.weight.T


def _check_weights(path: Path) -> None:
    """torch-fidelity unpickles without restraint, so a file is let through only once it has loaded as mere weights."""
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"no weights file {path}", hint="check the path, or leave it out to download") from None
    except Exception as error:  # damaged files raise many kinds
        raise CheckpointError(
            f"{path} is not a file of weights ({type(error).__name__})", hint="fetch it again"
        ) from error


@torch.no_grad()
def extract_features(
    network: FeatureNetwork, samples: SampleSet, *, batch_size: int
) -> Float[Tensor, "sample feature"]:
    """The features of a whole set, on the network's device, where the forward passes run too.

    Raises:
        ConfigError: a batch size below 1.
        DataError: features that are not finite.
    """
    if batch_size < 1:
        raise ConfigError(f"batch size {batch_size}", hint="give 1 or more")
    network.eval()
    parameter = next(network.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    starts = range(0, len(samples), batch_size)
    features = torch.cat([network(samples.pixels(start, start + batch_size).to(device)) for start in starts])
    if not torch.isfinite(features).all():
        raise DataError(
            f"{network.name} gives features of {samples.name} that are not finite", hint="check its weights"
        )
    return features
