"""Inception's features, in which the Fréchet distance is FID."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from framework.core.errors import CheckpointError, ConfigError
from framework.evaluation.distances import inception_score
from framework.evaluation.features.network import FeatureNetwork, Features, Pixels, SpatialFeatures
from framework.evaluation.vision_network import SPATIAL_CHANNELS


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
    takes_statistics = True

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

    @property
    def distance_name(self) -> str:
        """FID: the Fréchet distance in these features, and in no others."""
        return "fid"

    @property
    def spatial_distance_name(self) -> str:
        """SFID (Nash et al. 2021), as ADM's evaluator measures it."""
        return "sfid"

    @property
    def kernel_distance_name(self) -> str:
        """KID (Bińkowski et al. 2018)."""
        return "kid"

    def forward(self, images: Pixels) -> Features:
        return self.inception(images)[0]

    def with_spatial(self, images: Pixels) -> tuple[Features, SpatialFeatures | None]:
        """Features, and the first 7 channels of what TensorFlow's graph calls `mixed_6/conv`, 17 x 17 positions."""
        kept: list[Float[Tensor, "batch channel row column"]] = []
        handle = self.inception.Mixed_6d.branch1x1.register_forward_hook(lambda _, __, output: kept.append(output))
        try:
            features = self(images)
        finally:
            handle.remove()
        return features, kept[0][:, :SPATIAL_CHANNELS].flatten(1)

    @torch.no_grad()
    def sample_metrics(self, features: Features) -> dict[str, float]:
        """The Inception score and its standard deviation over splits, from 1 to the number of classes."""
        score = inception_score(self.class_logits(features))
        return {"inception_score": score.mean, "inception_score_std": score.std}

    def class_logits(self, features: Features) -> Float[Tensor, "sample class"]:
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
