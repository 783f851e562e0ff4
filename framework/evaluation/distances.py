"""Distances between a set of samples and a set of real images. Pure functions of features or of pixels."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from framework.core.console import tracked, working
from framework.core.errors import ConfigError, DataError
from framework.evaluation.samples import FeatureStatistics, SampleSet

CHUNK = 1024
"""Rows of a block of pairwise distances, which bounds memory whatever the size of the sets."""
_BLOCK_VALUES = 2**27
"""Values of a block of features in float64: 1 GiB."""
MAX_FRECHET_RANK = 16_384
"""Above it, the covariances' product alone takes more than 2 GiB and its singular values hours."""
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
    sample_features: Float[Tensor, "sample feature"],
    reference: Float[Tensor, "reference feature"] | FeatureStatistics,
) -> float:
    """Fréchet distance of the Gaussians fitted to both sets, in float64 on the CPU.

    `|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))` (Dowson and Landau 1982; Heusel et al. 2017), in squared feature
    units, >= 0. It is FID only with Inception's features. With factors `C = A^T A`, such as the centred features over
    `sqrt(n - 1)`, the last trace is the sum of the singular values of `A1 A2^T`, whose sides are at most the numbers of
    images and of features: no square root of a matrix is taken, and no covariance is made.

    Args:
        sample_features: of the samples.
        reference: features of real images, or their mean and covariance.

    Raises:
        DataError: fewer than 2 images on a side, or statistics of other features.
        ConfigError: more than `MAX_FRECHET_RANK` images and features.
    """
    _require_count(sample_features, 2, "samples")
    if isinstance(reference, Tensor):
        _require_count(reference, 2, "reference images")
        rank = min(len(sample_features), len(reference), sample_features.shape[1])
        if rank > MAX_FRECHET_RANK:
            problem = f"a Fréchet distance of {rank:,} or more images in {sample_features.shape[1]:,} features"
            raise ConfigError(problem, hint="choose a network that gives fewer features, or give fewer images")
    elif len(reference.mean) != sample_features.shape[1]:
        problem = f"the reference's mu has {len(reference.mean):,} features, the network {sample_features.shape[1]:,}"
        raise DataError(problem, hint="use the network that the statistics are of, or a reference of images alone")
    with working(f"Fréchet distance in {sample_features.shape[1]:,} features"):
        # The distance does not depend on the origin; features far from it would lose digits.
        origin = sample_features.double().mean(dim=0).cpu()
        ours, theirs = _fit(sample_features, origin), _fit(reference, origin)
        cross = torch.linalg.svdvals(ours.factor @ theirs.factor.T).sum()
        traces = ours.factor.square().sum() + theirs.factor.square().sum()
        distance = (ours.mean - theirs.mean).square().sum() + traces - 2 * cross
    return max(0.0, distance.item())  # rounding can leave equal sets below 0


@dataclass(frozen=True, kw_only=True)
class _Gaussian:
    """A mean, and a factor A of the covariance A^T A with no more rows than columns."""

    mean: Float[Tensor, "feature"]
    factor: Float[Tensor, "row feature"]


def _fit(data: Float[Tensor, "sample feature"] | FeatureStatistics, origin: Float[Tensor, "feature"]) -> _Gaussian:
    """The Gaussian of features, or of their statistics, about an origin near them."""
    if isinstance(data, FeatureStatistics):
        values, vectors = torch.linalg.eigh(torch.from_numpy(data.covariance).double())
        factor = values.clamp(min=0).sqrt()[:, None] * vectors.T
        return _Gaussian(mean=torch.from_numpy(data.mean).double() - origin, factor=factor)
    num, num_features = data.shape
    mean = data.double().mean(dim=0).cpu() - origin
    factor = torch.empty(0, num_features, dtype=torch.float64)
    # What A^T A needs of more rows than columns is their triangular factor, made of a block after the other.
    for rows in data.split(max(CHUNK, min(4 * num_features, _BLOCK_VALUES // num_features))):
        centred = (rows.double().cpu() - origin - mean) / (num - 1) ** 0.5
        factor = torch.cat([factor, centred])
        if num > num_features and len(factor) > num_features:
            factor = torch.linalg.qr(factor, mode="r").R
    return _Gaussian(mean=mean, factor=factor)


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
    radii, own_radii = _radii(reference, k, "reference images"), _radii(samples, k, "samples")
    precise = torch.empty(len(samples), dtype=torch.bool, device=samples.device)
    recalled = torch.zeros(len(reference), dtype=torch.bool, device=samples.device)
    for start, rows in _chunks(samples, "precision and recall"):
        distances, inside = torch.cdist(rows, reference), slice(start, start + len(rows))
        precise[inside] = (distances <= radii).any(dim=1)
        recalled |= (distances <= own_radii[inside, None]).any(dim=0)
    return PrecisionRecall(precision=precise.float().mean().item(), recall=recalled.float().mean().item())


def kernel_distance(
    sample_features: Float[Tensor, "sample feature"], reference_features: Float[Tensor, "reference feature"]
) -> ScoreSpread:
    """Squared maximum mean discrepancy under a cubic kernel, over random subsets, by torchmetrics.

    Unbiased whatever the number of images, unlike the Fréchet distance: `k(x, y) = (x y / features + 1)^3`, 100 subsets
    of 1,000 images (Bińkowski et al. 2018, section 4). It is KID only with Inception's features.

    Args:
        sample_features: of the samples.
        reference_features: of real images.

    Raises:
        DataError: fewer than 2 images on a side.
    """
    _require_count(sample_features, 2, "samples")
    _require_count(reference_features, 2, "reference images")
    size = min(1000, len(sample_features), len(reference_features))
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), working("kernel distance"):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        metric = KernelInceptionDistance(feature=nn.Identity(), subset_size=size)
        metric.update(reference_features.cpu(), real=True)
        metric.update(sample_features.cpu(), real=False)
        mean, std = metric.compute()
    return ScoreSpread(mean=mean.item(), std=std.item())


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
    for start in tracked(range(0, len(samples), chunk), f"nearest training images of {samples.name}"):
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


def _require_count(rows: Float[Tensor, "row value"], least: int, what: str) -> None:
    if len(rows) < least:
        raise DataError(f"{len(rows)} {what}", hint=f"give {least} or more")


def _chunks(
    points: Float[Tensor, "sample feature"], description: str
) -> Iterator[tuple[int, Float[Tensor, "row feature"]]]:
    """Blocks of points with the number of their first, and a sign of how far it is."""
    for start in tracked(range(0, len(points), CHUNK), description):
        yield start, points[start : start + CHUNK]


def _radii(points: Float[Tensor, "sample feature"], k: int, what: str) -> Float[Tensor, "sample"]:
    """Distance of each point to its k-th nearest other point (each is its own 0-th)."""
    blocks = _chunks(points, f"neighbours among {what}")
    return torch.cat([torch.cdist(rows, points).kthvalue(k + 1, dim=1).values for _, rows in blocks])


def _flat(
    images: UInt8[np.ndarray, "sample height width channel"], device: torch.device | str
) -> Float[Tensor, "sample value"]:
    return torch.from_numpy(images).to(device).flatten(1).float() / 255
