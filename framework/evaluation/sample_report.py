"""Everything that is measured on a set of samples, as one record."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from rich.table import Table
from torch import Tensor

from framework.core.errors import ConfigError, DataError
from framework.core.io import atomic_write
from framework.core.serialization import to_json
from framework.evaluation.distances import (
    frechet_distance,
    nearest_neighbour_distance,
    precision_recall,
    summarize_neighbours,
)
from framework.evaluation.features.network import FeatureNetwork, Features, extract_features
from framework.evaluation.samples import SampleSet
from framework.evaluation.svm_accuracy import MAX_TRAINING_IMAGES, SupportVectorClassifier
from framework.tracking.data_identity import class_changes


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """What was measured, of what, and what to beware of.

    Args:
        metrics: value of each metric by name.
        samples: where the samples came from.
        num_samples: images in them.
        reference: where the real images came from.
        num_reference: images in them.
        training: where the training images came from, if they were given.
        num_training: images in them.
        features: the network's name.
        num_features: how many features it gives for an image.
        notes: what makes a number less than it seems.
    """

    metrics: Mapping[str, float]
    samples: str
    num_samples: int
    reference: str
    num_reference: int
    training: str | None
    num_training: int
    features: str
    num_features: int
    notes: tuple[str, ...]

    def to_json(self, path: str | Path) -> None:
        """Write the record, atomically; makes the folder. Raises OSError."""
        text = json.dumps(to_json(self), indent=2, ensure_ascii=False) + "\n"
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(Path(path)) as file:
            # Of a path that is not UTF-8: as JSON escapes it.
            file.write(text.encode(errors="backslashreplace"))

    def table(self) -> Table:
        """The metrics for a terminal, with the notes below."""
        title = f"{self.num_samples:,} samples against {self.num_reference:,} reference images"
        table = Table("metric", title=title, caption="\n".join(self.notes) or None, caption_justify="left")
        table.add_column("value", justify="right")
        for name, value in self.metrics.items():
            table.add_row(name, f"{value:.4f}")
        return table


def evaluate_samples(
    samples: SampleSet,
    reference: SampleSet,
    *,
    network: FeatureNetwork,
    training: SampleSet | None = None,
    svm_accuracy: bool = False,
    batch_size: int = 256,
    neighbours: int = 3,
) -> EvaluationReport:
    """Measure samples against real images, on the network's device.

    Args:
        samples: what is measured.
        reference: real images, best held out from training.
        network: gives the features of the distances; only Inception's Fréchet distance is called `fid`.
        training: the training images, to tell copies from samples and to train the support vector machine.
        svm_accuracy: whether to measure how often a support vector machine trained on `training` predicts the label.
        batch_size: images of a forward pass of the network.
        neighbours: k of precision and recall.

    Raises:
        ConfigError: `svm_accuracy` without training images.
        DataError: sets whose shapes differ, that are too small, or that lack labels for `svm_accuracy`.
    """
    if svm_accuracy and training is None:
        raise ConfigError("svm_accuracy has no training images", hint="give the shards that the model was trained on")
    given = [samples, reference] if training is None else [samples, reference, training]
    _require_one_size(given)
    _require_one_numbering(given if svm_accuracy else [])
    fewest = 1 if all(images.is_gray for images in given) else 3
    channels = network.channels or fewest
    sample_features, reference_features = (
        extract_features(network, images.with_channels(channels), batch_size=batch_size)
        for images in (samples, reference)
    )
    statistics = reference.statistics if network.takes_statistics else None
    notes = _rank_notes(samples.name, sample_features) + _reference_notes(network, reference, reference_features)
    metrics = {network.distance_name: frechet_distance(sample_features, statistics or reference_features)}
    metrics |= _shares(network, sample_features, reference_features, neighbours)
    metrics |= network.sample_metrics(sample_features)
    metrics |= network.labelled_metrics("samples", samples, sample_features)
    metrics |= network.labelled_metrics("reference", reference, reference_features)
    if training is not None:
        # Pixels are compared in as few channels as the images need: repeated gray would only stretch the distance.
        pixels = (images.with_channels(fewest) for images in given)
        metrics |= _training_metrics(*pixels, svm_accuracy=svm_accuracy, device=sample_features.device)
        notes += _training_notes(metrics, reference.name, training, svm_accuracy=svm_accuracy)
    return EvaluationReport(
        metrics=metrics,
        samples=samples.name,
        num_samples=len(samples),
        reference=reference.name,
        num_reference=len(reference),
        training=None if training is None else training.name,
        num_training=0 if training is None else len(training),
        features=network.name,
        num_features=sample_features.shape[1],
        notes=tuple(notes),
    )


def _require_one_size(sets: list[SampleSet]) -> None:
    first, *others = sets
    size = first.images.shape[1:3]
    for other in others:
        if other.images.shape[1:3] != size:
            raise DataError(
                f"images of {first.name} are {list(size)} and of {other.name} {list(other.images.shape[1:3])} pixels",
                hint="read the real images at the samples' size (image_size)",
            )


def _require_one_numbering(sets: list[SampleSet]) -> None:
    """Labels are compared: a number must mean one class everywhere."""
    named = [each for each in sets if each.classes is not None and each.labels is not None]
    for first, other in pairwise(named):
        if changes := class_changes(first.classes or (), other.classes or ()):
            raise DataError(
                f"{first.name} and {other.name} number their classes otherwise ({'; '.join(changes)})",
                hint="make the shards from sources with the same class folders",
            )


def _reference_notes(network: FeatureNetwork, reference: SampleSet, features: Features) -> list[str]:
    if reference.statistics is None:
        return _rank_notes(reference.name, features)
    if network.takes_statistics:
        images = f"its {len(features)} images"
        return [f"{network.distance_name} is against mu and sigma in {reference.name}, not against {images}"]
    return [
        f"mu and sigma in {reference.name} are not used: they are of Inception's features",
        *_rank_notes(reference.name, features),
    ]


def _rank_notes(name: str, features: Features) -> list[str]:
    num, num_features = features.shape
    if num > num_features:
        return []
    return [
        f"{name}: {num} images for {num_features} features give a covariance of deficient rank, which biases the "
        f"Fréchet distance upwards; give well over {num_features}"
    ]


def _training_notes(
    metrics: Mapping[str, float], held_out: str, training: SampleSet, *, svm_accuracy: bool
) -> list[str]:
    notes: list[str] = []
    if svm_accuracy and len(training) > MAX_TRAINING_IMAGES:
        notes.append(f"svm_accuracy is trained on {MAX_TRAINING_IMAGES:,} of the {len(training):,} images")
    if metrics["nearest_neighbour/held_out_exact_copy_share"] > 0.5:
        notes.append(f"most of {held_out} is in {training.name}: what is called held out was trained on")
    return notes


def _shares(
    network: FeatureNetwork, samples: Features, reference: Float[Tensor, "reference feature"], neighbours: int
) -> dict[str, float]:
    shares = precision_recall(samples, reference, k=neighbours)
    return {f"precision/{network.name}": shares.precision, f"recall/{network.name}": shares.recall}


def _training_metrics(
    samples: SampleSet, held_out: SampleSet, training: SampleSet, *, svm_accuracy: bool, device: torch.device
) -> dict[str, float]:
    roles = {"samples": samples, "held_out": held_out}
    metrics: dict[str, float] = {}
    for role, images in roles.items():
        distances = nearest_neighbour_distance(images, training, device=device)
        summary = summarize_neighbours(distances, num_values=images.images[0].size)
        metrics |= {f"nearest_neighbour/{role}_{name}": value for name, value in to_json(summary).items()}
    if svm_accuracy:
        machine = SupportVectorClassifier(training)
        metrics |= {f"svm_accuracy/{role}": machine.accuracy(images) for role, images in roles.items()}
    return metrics
