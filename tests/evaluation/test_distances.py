import math

import numpy as np
import pytest
import torch

from framework.core.errors import ConfigError, DataError
from framework.evaluation import distances
from framework.evaluation.distances import (
    frechet_distance,
    inception_score,
    kernel_distance,
    nearest_neighbour_distance,
    precision_recall,
    summarize_neighbours,
)
from framework.evaluation.samples import FeatureStatistics, SampleSet


def exact_gaussian(mean: torch.Tensor, covariance: torch.Tensor, num: int) -> torch.Tensor:
    """`num` points whose sample mean and covariance are exactly those given."""
    points = torch.randn(num, len(mean), generator=torch.Generator().manual_seed(num), dtype=torch.float64)
    points -= points.mean(dim=0)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(points.T.cov()), points.T, upper=False).T
    return whitened @ torch.linalg.cholesky(covariance).T + mean


def test_frechet_distance_of_gaussians_is_the_closed_form():
    # Diagonal covariances commute, so tr(C1 + C2 - 2 (C1 C2)^(1/2)) is the sum of squared differences of deviations.
    first, second = torch.tensor([1.0, 4.0, 9.0]).double(), torch.tensor([4.0, 4.0, 1.0]).double()
    mean = torch.tensor([1.0, -2.0, 0.0]).double()
    samples = exact_gaussian(mean, first.diag(), 50)
    reference = exact_gaussian(torch.zeros(3).double(), second.diag(), 70)
    assert frechet_distance(samples, reference) == pytest.approx(5 + 1 + 0 + 4, abs=1e-9)


def test_frechet_distance_of_correlated_gaussians():
    # C1 = A, C2 = identity: tr(A + I - 2 A^(1/2)), where A has the eigenvalues 1 and 3.
    correlated = torch.tensor([[2.0, 1.0], [1.0, 2.0]]).double()
    zero = torch.zeros(2).double()
    samples, reference = exact_gaussian(zero, correlated, 40), exact_gaussian(zero, torch.eye(2).double(), 40)
    assert frechet_distance(samples, reference) == pytest.approx(4 + 2 - 2 * (1 + math.sqrt(3)), abs=1e-9)


def test_frechet_distance_far_from_the_origin_keeps_its_digits():
    zero, one = torch.zeros(2).double(), torch.ones(2).double()
    samples, reference = (exact_gaussian(mean, torch.eye(2).double(), 40) + 1e7 for mean in (one, zero))
    assert frechet_distance(samples, reference) == pytest.approx(2, abs=1e-6)


def test_frechet_distance_of_a_set_to_itself_is_zero():
    points = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    assert 0 <= frechet_distance(points, points) < 1e-9


def by_square_root(samples: torch.Tensor, reference: torch.Tensor) -> float:
    """The slow reference: the trace of a square root of the product of two covariances."""
    first, second = samples.double(), reference.double()
    product = first.T.cov() @ second.T.cov()
    root = torch.linalg.eigvals(product).sqrt().real.sum()
    traces = first.T.cov().trace() + second.T.cov().trace()
    return float((first.mean(0) - second.mean(0)).square().sum() + traces - 2 * root)


# Both sets larger than the features, one, neither; and in blocks of fewer rows than columns.
@pytest.mark.parametrize("counts", [(200, 150), (200, 20), (10, 90), (12, 17)])
@pytest.mark.parametrize("block", [2**27, 100])
def test_frechet_distance_equals_that_of_the_covariances(counts, block, monkeypatch):
    monkeypatch.setattr(distances, "CHUNK", 16)
    monkeypatch.setattr(distances, "_BLOCK_VALUES", block)
    generator = torch.Generator().manual_seed(counts[0])
    mixing = torch.randn(40, 40, generator=generator)
    samples, reference = (
        torch.randn(num, 40, generator=generator) @ mixing + at for num, at in zip(counts, (3, 1), strict=True)
    )
    # A feature that never changes, as the rim of handwritten digits.
    samples[:, 7] = reference[:, 7] = 0.25
    expected = by_square_root(samples, reference)
    assert frechet_distance(samples, reference) == pytest.approx(expected, rel=1e-5)
    statistics = FeatureStatistics(mean=reference.mean(0).numpy(), covariance=reference.double().T.cov().numpy())
    assert frechet_distance(samples, statistics) == pytest.approx(expected, rel=1e-5)


def test_more_features_than_any_covariance_could_hold():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(3, 200_000, generator=generator)
    assert frechet_distance(points, points) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(points, points + 0.01) == pytest.approx(200_000 * 0.01**2, rel=1e-4)


def test_frechet_distance_refuses_too_high_a_rank(monkeypatch):
    monkeypatch.setattr(distances, "MAX_FRECHET_RANK", 4)
    assert frechet_distance(torch.zeros(4, 9), torch.zeros(9, 9)) == 0
    with pytest.raises(ConfigError, match="5 or more images in 9 features: choose a network"):
        frechet_distance(torch.zeros(5, 9), torch.zeros(9, 9))


def test_frechet_distance_refuses():
    with pytest.raises(DataError, match="1 samples: give 2 or more"):
        frechet_distance(torch.zeros(1, 3), torch.zeros(5, 3))
    statistics = FeatureStatistics(mean=np.zeros(4), covariance=np.eye(4))
    with pytest.raises(DataError, match="the reference's mu has 4 features, the network 3"):
        frechet_distance(torch.zeros(5, 3), statistics)
    with pytest.raises(DataError, match="1 reference images"):
        frechet_distance(torch.zeros(5, 3), torch.zeros(1, 3))


def test_precision_and_recall_on_a_line():
    # k = 1. Radii of the reference 0, 1, 10: 1, 1, 9, so its balls cover [-1, 2] and [1, 19].
    # Radii of the samples 0, 18, 30: 18, 12, 12, so their balls cover [-18, 18], [6, 30], [18, 42].
    reference, samples = torch.tensor([[0.0], [1.0], [10.0]]), torch.tensor([[0.0], [18.0], [30.0]])
    found = precision_recall(samples, reference, k=1)
    assert found.precision == pytest.approx(2 / 3)
    assert found.recall == pytest.approx(1)


def test_collapsed_samples_have_precision_and_no_recall():
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(200, 4, generator=generator)
    samples = reference[:1] + 1e-3 * torch.randn(50, 4, generator=generator)
    found = precision_recall(samples, reference, k=3)
    assert found.precision == 1
    assert found.recall < 0.05


def test_precision_and_recall_do_not_depend_on_the_chunks(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    reference, samples = torch.randn(60, 40, generator=generator), 1.2 * torch.randn(50, 40, generator=generator)
    whole = precision_recall(samples, reference)
    monkeypatch.setattr(distances, "CHUNK", 7)
    assert precision_recall(samples, reference) == whole


def test_precision_and_recall_refuse():
    with pytest.raises(DataError, match="3 samples: give 4 or more"):
        precision_recall(torch.zeros(3, 2), torch.zeros(9, 2), k=3)
    with pytest.raises(ConfigError, match="0 neighbours"):
        precision_recall(torch.zeros(9, 2), torch.zeros(9, 2), k=0)


def test_inception_score_is_the_number_of_classes_where_each_is_named_surely():
    logits = 50.0 * torch.eye(4).repeat(25, 1)
    assert inception_score(logits, splits=1 + 1).mean == pytest.approx(4, rel=0.05)
    assert inception_score(torch.zeros(100, 4)).mean == pytest.approx(1)


def test_inception_score_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    inception_score(torch.zeros(20, 4))
    assert torch.equal(torch.rand(1), expected)


def test_inception_score_refuses_too_few():
    with pytest.raises(DataError, match="19 samples: give 20 or more"):
        inception_score(torch.zeros(19, 4))


def set_of(*levels: int, channels: int = 1) -> SampleSet:
    images = np.array(levels, np.uint8)[:, None, None, None]
    return SampleSet(images=np.tile(images, (1, 2, 2, channels)))


def test_nearest_neighbour_distance_by_hand():
    # Four pixels that each differ by 51 of 255 levels: sqrt(4 * 0.2^2) = 0.4.
    found = nearest_neighbour_distance(set_of(0, 151, 255), set_of(200, 100, 0))
    assert found.tolist() == pytest.approx([0, 2 * 49 / 255, 2 * 55 / 255])
    assert nearest_neighbour_distance(set_of(51), set_of(0)).item() == pytest.approx(0.4)


def test_nearest_neighbour_distance_is_exact_for_copies_in_any_chunk(monkeypatch):
    rng = np.random.default_rng(0)
    training = SampleSet(images=rng.integers(0, 256, (70, 16, 16, 3), np.uint8))
    others = rng.integers(0, 256, (30, 16, 16, 3), np.uint8)
    samples = SampleSet(images=np.concatenate([training.images[::3], others]))
    whole = nearest_neighbour_distance(samples, training)
    assert (whole[:24] == 0).all()
    differences = others[:, None].astype(np.float64) - training.images[None]
    by_hand = np.sqrt((differences**2).sum(axis=(2, 3, 4))).min(axis=1) / 255
    assert whole[24:].tolist() == pytest.approx(by_hand.tolist(), rel=1e-5)
    monkeypatch.setattr(distances, "CHUNK", 9)
    assert torch.allclose(nearest_neighbour_distance(samples, training), whole)


def test_nearest_neighbour_distance_refuses_other_shapes():
    with pytest.raises(DataError, match="read both at one size"):
        nearest_neighbour_distance(set_of(0), set_of(0, channels=3))


def test_summary_of_neighbours_by_hand():
    found = summarize_neighbours(torch.tensor([0.0, 0.03, 0.05, 1.0, 3.0]), num_values=4)
    assert found.median_l2 == pytest.approx(0.05)
    assert found.mean_l2 == pytest.approx(4.08 / 5)
    assert found.exact_copy_share == pytest.approx(0.2)
    assert found.near_copy_share == pytest.approx(0.4)  # below 0.02 * sqrt(4) = 0.04


def test_the_kernel_distance_by_hand():
    generator = torch.Generator().manual_seed(0)
    samples, reference = torch.randn(6, 3, generator=generator) + 1, torch.randn(6, 3, generator=generator)

    def kernel(a, b):
        return (a @ b.T / 3 + 1) ** 3

    # Subsets of all images are the whole sets, in another order.
    own = [kernel(each, each).sum() - kernel(each, each).trace() for each in (samples, reference)]
    expected = (own[0] + own[1]) / 30 - 2 * kernel(samples, reference).mean()
    found = kernel_distance(samples, reference)
    assert found.mean == pytest.approx(expected.item(), rel=1e-4)
    assert found.std == pytest.approx(0, abs=1e-4)
    with pytest.raises(DataError, match="1 reference images"):
        kernel_distance(samples, reference[:1])


def test_the_kernel_distance_of_equal_sets_is_about_zero_and_leaves_the_generator_alone():
    before = torch.random.get_rng_state()
    features = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    assert abs(kernel_distance(features, features.flip(0)).mean) < 0.2
    assert kernel_distance(features + 1, features).mean > 1
    assert torch.equal(torch.random.get_rng_state(), before)
