"""Distances between a set of samples and a set of real images. Pure functions of features or of pixels."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore

from framework.core.errors import ConfigError, DataError
from framework.evaluation.samples import SampleSet

CHUNK = 1024
"""Rows of a block of pairwise distances, which bounds memory whatever the size of the sets."""
MAX_FRECHET_FEATURES = 16_384
"""Above it, a covariance alone takes more than 2 GiB and its square root hours."""
NEAR_COPY_RMS = 0.02
"""Root-mean-square difference per value, in [0, 1], under which an image is a near copy (ours): 5 of 255 levels."""


@dataclass(frozen=True, kw_only=True)
class PrecisionRecall:
    """Shares in [0, 1]: samples inside the reference's manifold, reference images inside the samples' manifold."""

    precision: float
    recall: float


@dataclass(frozen=True, kw_only=True)
class ScoreSpread:
    """A score's mean and standard deviation over splits."""

    mean: float
    std: float


@dataclass(frozen=True, kw_only=True)
class NeighbourSummary:
    """How far images lie from their nearest training image.

    Args:
        median_l2: median over the images of the L2 distance over all values of an image, each value in [0, 1].
        mean_l2: the mean of it.
        exact_copy_share: share of images equal to a training image.
        near_copy_share: share within `NEAR_COPY_RMS` of one (exact copies too).
    """

    median_l2: float
    mean_l2: float
    exact_copy_share: float
    near_copy_share: float


def frechet_distance(
    sample_features: Float[Tensor, "sample feature"], reference_features: Float[Tensor, "reference feature"]
) -> float:
    """Fréchet distance of the Gaussians fitted to both sets, by torchmetrics, in float64 on the CPU.

    `|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))` (Dowson and Landau 1982; Heusel et al. 2017), in squared feature
    units, >= 0. It is FID only with Inception's features.

    Raises:
        DataError: fewer than 2 images on a side.
        ConfigError: more than `MAX_FRECHET_FEATURES` features, such as the pixels of large images.
    """
    num_features = sample_features.shape[1]
    if num_features > MAX_FRECHET_FEATURES:
        raise ConfigError(f"a Fréchet distance in {num_features:,} features", hint="choose a network that gives fewer")
    _require_count(sample_features, 2, "samples")
    _require_count(reference_features, 2, "reference images")
    # The distance does not depend on the origin; features far from it would lose digits in torchmetrics' sums.
    origin = reference_features.double().mean(dim=0).cpu()
    metric = FrechetInceptionDistance(feature=_GivenFeatures(num_features))
    metric.update(sample_features.double().cpu() - origin, real=False)
    metric.update(reference_features.double().cpu() - origin, real=True)
    return max(0.0, metric.compute().item())  # rounding can leave equal sets below 0


def precision_recall(
    sample_features: Float[Tensor, "sample feature"],
    reference_features: Float[Tensor, "reference feature"],
    *,
    k: int = 3,
) -> PrecisionRecall:
    """Improved precision and recall (Kynkäänniemi et al. 2019, section 2).

    A set's manifold is the union of balls about its points, each reaching its k-th nearest other point.

    Args:
        sample_features: of the samples.
        reference_features: of real images.
        k: neighbours whose distance is a sample's radius, 1 or more.

    Raises:
        ConfigError: k below 1.
        DataError: not more than k images on a side.
    """
    if k < 1:
        raise ConfigError(f"{k} neighbours", hint="give 1 or more")
    _require_count(sample_features, k + 1, "samples")
    _require_count(reference_features, k + 1, "reference images")
    origin = reference_features.mean(dim=0)  # as above: cdist goes through inner products
    samples, reference = sample_features - origin, reference_features - origin
    return PrecisionRecall(
        precision=_share_inside(samples, reference, _radii(reference, k)),
        recall=_share_inside(reference, samples, _radii(samples, k)),
    )


def inception_score(logits: Float[Tensor, "sample class"], *, splits: int = 10) -> ScoreSpread:
    """`exp(E_x KL(p(y|x) || p(y)))` over random splits (Salimans et al. 2016), by torchmetrics; 1 to `classes`.

    Raises:
        DataError: fewer samples than two a split.
    """
    _require_count(logits, 2 * splits, "samples")
    # torchmetrics warns of its memory use at every construction, and splits by the global generator.
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        metric = InceptionScore(feature=nn.Identity(), splits=splits)
        metric.update(logits.double().cpu())
        mean, std = metric.compute()
    return ScoreSpread(mean=mean.item(), std=std.item())


def nearest_neighbour_distance(
    samples: SampleSet, training: SampleSet, *, device: torch.device | str = "cpu"
) -> Float[Tensor, "sample"]:
    """L2 pixel distance of each sample to the nearest training image, each value in [0, 1]; exact for copies.

    Args:
        samples: whose distances are asked for.
        training: among which the nearest is looked for.
        device: that computes.

    Raises:
        DataError: images of other shapes than the training images.
    """
    if samples.images.shape[1:] != training.images.shape[1:]:
        raise DataError(
            f"{samples.name} has images of {list(samples.images.shape[1:])} [height, width, channel] and "
            f"{training.name} of {list(training.images.shape[1:])}",
            hint="read both at one size",
        )
    chunk = max(1, min(CHUNK, 2**28 // samples.images[0].size))  # at most 1 GiB of float32 a block
    distances = torch.empty(len(samples))
    for start in range(0, len(samples), chunk):
        rows = _flat(samples.images[start : start + chunk], device)
        best = torch.full((len(rows),), torch.inf, device=device)
        index = torch.zeros(len(rows), dtype=torch.long, device=device)
        for first in range(0, len(training), chunk):
            nearest = torch.cdist(rows, _flat(training.images[first : first + chunk], device)).min(dim=1)
            index = torch.where(nearest.values < best, nearest.indices + first, index)
            best = torch.minimum(nearest.values, best)
        # cdist goes through inner products and rounds: measured again, a copy is at 0.
        winners = _flat(training.images[index.cpu().numpy()], device)
        distances[start : start + chunk] = (rows - winners).norm(dim=1).cpu()
    return distances


def summarize_neighbours(distances: Float[Tensor, "sample"], *, num_values: int) -> NeighbourSummary:
    """Summary of `nearest_neighbour_distance` for images of `num_values` values (height x width x channels)."""
    return NeighbourSummary(
        median_l2=float(np.median(distances.numpy())),
        mean_l2=distances.mean().item(),
        exact_copy_share=(distances == 0).float().mean().item(),
        near_copy_share=(distances < NEAR_COPY_RMS * num_values**0.5).float().mean().item(),
    )


class _GivenFeatures(nn.Module):
    """Stands for the network in torchmetrics: features are computed once, and serve every distance."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Float[Tensor, "sample feature"]) -> Float[Tensor, "sample feature"]:
        return features


def _require_count(rows: Float[Tensor, "row value"], least: int, what: str) -> None:
    if len(rows) < least:
        raise DataError(f"{len(rows)} {what}", hint=f"give {least} or more")


def _radii(points: Float[Tensor, "sample feature"], k: int) -> Float[Tensor, "sample"]:
    """Distance of each point to its k-th nearest other point (each is its own 0-th)."""
    return torch.cat([torch.cdist(rows, points).kthvalue(k + 1, dim=1).values for rows in points.split(CHUNK)])


def _share_inside(
    points: Float[Tensor, "sample feature"], centres: Float[Tensor, "centre feature"], radii: Float[Tensor, "centre"]
) -> float:
    inside = [(torch.cdist(rows, centres) <= radii).any(dim=1) for rows in points.split(CHUNK)]
    return torch.cat(inside).float().mean().item()


def _flat(
    images: UInt8[np.ndarray, "sample height width channel"], device: torch.device | str
) -> Float[Tensor, "sample value"]:
    return torch.from_numpy(images).to(device).flatten(1).float() / 255
