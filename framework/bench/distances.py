"""`framework bench distances`: how long the measures of samples take, against the usual way of each."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from rich.table import Table
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from framework.bench.record import check_record, machine_of, write_record
from framework.core.console import results, tracked
from framework.core.errors import ConfigError
from framework.core.serialization import to_json
from framework.evaluation.distances import frechet_distance, nearest_neighbour_distance, precision_recall
from framework.evaluation.features import PixelFeatures, extract_features
from framework.evaluation.samples import SampleSet
from framework.evaluation.svm_accuracy import SupportVectorClassifier

_NUM_CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One measure of pixels.

    Attributes:
        measure: which.
        side: of the images in pixels; they have three channels.
        seconds: that it took.
        usual_seconds: of the usual way; None where it was left out or is the same.
        difference: of the two results; None where there is one.
    """

    measure: str
    side: int
    seconds: float
    usual_seconds: float | None = None
    difference: float | None = None


def bench_distances(
    out: Path | None = None,
    *,
    num_images: int = 1000,
    sides: tuple[int, ...] = (16, 32, 64),
    most_usual_side: int = 32,
    seed: int = 0,
) -> dict[str, object]:
    """Measures how long `framework evaluate` computes on pixels, and how long the usual ways do.

    Those are: torchmetrics' eigenvalues of the product of two covariances for the Fréchet distance, and scikit-learn's
    own radial kernel for the support vector machine.

    Args:
        out: JSON file for the numbers.
        num_images: samples, reference and training images each.
        sides: of the images, which have 3 x side x side values.
        most_usual_side: up to which the usual ways are tried.
        seed: of the images.

    Returns:
        The numbers, as in the file.

    Raises:
        ConfigError: a number out of range.
    """
    check_record(out)
    if num_images < _NUM_CLASSES or min(sides) < 1:
        raise ConfigError(f"{num_images} images of sides {sides}", hint=f"give {_NUM_CLASSES} or more, and 1 or more")
    measured = [
        each
        for side in tracked(sides, "sides", bar=False)
        for each in _measure(side, num_images, seed, usual=side <= most_usual_side)
    ]
    _show(measured, num_images)
    record = {"machine": machine_of(), "num_images": num_images, "measured": [to_json(each) for each in measured]}
    write_record(out, record)
    return record


def _measure(side: int, num_images: int, seed: int, *, usual: bool) -> list[Measured]:
    sets = [_images(side, num_images, (seed, number)) for number in range(2)]
    samples, training = sets
    features = [extract_features(PixelFeatures(), each, batch_size=256) for each in sets]
    found: list[Measured] = []

    def note(measure: str, ours: Callable[[], float], theirs: Callable[[], float] | None = None) -> None:
        value, seconds = _timed(ours)
        if theirs is None or not usual:
            found.append(Measured(measure=measure, side=side, seconds=seconds))
            return
        other, usual_seconds = _timed(theirs)
        difference = abs(value - other)
        found.append(
            Measured(measure=measure, side=side, seconds=seconds, usual_seconds=usual_seconds, difference=difference)
        )

    note("Fréchet distance", lambda: frechet_distance(*features), lambda: covariance_distance(*features))
    note("precision and recall", lambda: precision_recall(*features).recall)
    note("nearest neighbours", lambda: nearest_neighbour_distance(samples, training).mean().item())
    note(
        "support vector machine",
        lambda: SupportVectorClassifier(training).accuracy(samples),
        lambda: _radial_accuracy(samples, training),
    )
    return found


def _timed(function: Callable[[], float]) -> tuple[float, float]:
    start = time.perf_counter()
    value = function()
    return value, time.perf_counter() - start


def _images(side: int, count: int, seed: tuple[int, int]) -> SampleSet:
    """Noise about an image of each class."""
    centres = np.random.default_rng(seed[0]).integers(64, 192, (_NUM_CLASSES, side, side, 3))
    rng, labels = np.random.default_rng(seed), np.arange(count) % _NUM_CLASSES
    noise = rng.normal(0, 40, (count, side, side, 3))
    return SampleSet(images=np.clip(centres[labels] + noise, 0, 255).astype(np.uint8), labels=labels)


class _GivenFeatures(nn.Module):
    """Stands for the network in torchmetrics."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Float[Tensor, "sample feature"]) -> Float[Tensor, "sample feature"]:
        return features


def covariance_distance(
    samples: Float[Tensor, "sample feature"], reference: Float[Tensor, "reference feature"]
) -> float:
    """The Fréchet distance by torchmetrics: n^3 in the number of features, whatever that of the images."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metric = FrechetInceptionDistance(feature=_GivenFeatures(samples.shape[1]))
    metric.update(samples.double(), real=False)
    metric.update(reference.double(), real=True)
    return metric.compute().item()


def _radial_accuracy(samples: SampleSet, training: SampleSet) -> float:
    from sklearn.svm import SVC

    pixels, known = (each.images.reshape(len(each), -1) / 255 for each in (samples, training))
    machine = SVC(kernel="rbf", C=10.0, gamma="scale").fit(known, training.labels)
    return float(machine.score(pixels, samples.labels))


def _show(measured: list[Measured], num_images: int) -> None:
    table = Table(title=f"seconds with {num_images:,} images a set, on {machine_of()}")
    for heading in ("measure", "features", "ours", "the usual way", "results differ by"):
        table.add_column(heading, justify="left" if heading == "measure" else "right")
    for each in measured:
        usual = "" if each.usual_seconds is None else f"{each.usual_seconds:.2f}"
        difference = "" if each.difference is None else f"{each.difference:.1e}"
        table.add_row(each.measure, f"{3 * each.side**2:,}", f"{each.seconds:.2f}", usual, difference)
    results().print(table)
