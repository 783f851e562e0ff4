"""Everything that is measured on a set of samples, as one record."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from rich.table import Table
from rich.text import Text
from torch import Tensor

from framework.core.console import visible
from framework.core.errors import ConfigError, DataError
from framework.core.io import atomic_write
from framework.core.serialization import to_json
from framework.evaluation.distances import (
    frechet_distance,
    kernel_distance,
    nearest_neighbour_distance,
    precision_recall,
    summarize_neighbours,
)
from framework.evaluation.features.network import FeatureNetwork, Features, SetFeatures, extract_with_spatial
from framework.evaluation.samples import FeatureStatistics, ReferenceStatistics, SampleSet
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
        num_reference: images in them; 0 of a reference that is their statistics alone.
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
        against = f"{self.num_reference:,} reference images" if self.num_reference else "mu and sigma of the reference"
        title = f"{self.num_samples:,} samples against {against}"
        caption = Text("\n".join(map(visible, self.notes)))
        table = Table("metric", title=title, caption=caption, caption_justify="left")
        table.add_column("value", justify="right")
        for name, value in self.metrics.items():
            table.add_row(name, f"{value:.4f}")
        return table


def evaluate_samples(
    samples: SampleSet,
    reference: SampleSet | ReferenceStatistics,
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
        reference: real images, best held out from training; of mean and covariance alone, the Fréchet distance.
        network: gives the features of the distances; only Inception's Fréchet distance is called `fid`.
        training: the training images, to tell copies from samples and to train the support vector machine.
        svm_accuracy: whether to measure how often a support vector machine trained on `training` predicts the label.
        batch_size: images of a forward pass of the network.
        neighbours: k of precision and recall.

    Raises:
        ConfigError: `svm_accuracy` without training images, or statistics of other features than the network's.
        DataError: sets whose shapes differ, that are too small, or that lack labels for `svm_accuracy`.
    """
    real = _images_of(reference, network)
    given = [each for each in (samples, real, training) if each is not None]
    _require_comparable(given, training, svm_accuracy=svm_accuracy)
    fewest = 1 if all(images.is_gray for images in given) else 3

    def features_of(images: SampleSet) -> SetFeatures:
        return extract_with_spatial(network, images.with_channels(network.channels or fewest), batch_size=batch_size)

    made, known = features_of(samples), None if real is None else features_of(real)
    sample_features, real_features = made.features, None if known is None else known.features
    notes = _rank_notes(samples.name, sample_features) + _reference_notes(network, reference, real_features)
    metrics = {network.distance_name: _distance(network, sample_features, reference.statistics, real_features)}
    if known is not None:
        metrics |= _further_distances(network, made, known, neighbours)
    metrics |= network.sample_metrics(sample_features) | network.labelled_metrics("samples", samples, sample_features)
    if real is not None and known is not None:
        metrics |= network.labelled_metrics("reference", real, known.features)
    if training is not None:
        # Pixels are compared in as few channels as the images need: repeated gray would only stretch the distance.
        plain = [images.with_channels(fewest) for images in given]
        roles: dict[str, SampleSet] = dict(zip(("samples", "held_out"), plain[:-1], strict=False))
        metrics |= _training_metrics(roles, plain[-1], svm_accuracy=svm_accuracy, device=sample_features.device)
        notes += _training_notes(metrics, reference.name, training, svm_accuracy=svm_accuracy)
    return EvaluationReport(
        metrics=metrics,
        samples=samples.name,
        num_samples=len(samples),
        reference=reference.name,
        num_reference=0 if real is None else len(real),
        training=None if training is None else training.name,
        num_training=0 if training is None else len(training),
        features=network.name,
        num_features=sample_features.shape[1],
        notes=tuple(notes),
    )


def _images_of(reference: SampleSet | ReferenceStatistics, network: FeatureNetwork) -> SampleSet | None:
    """The images of a reference, if it has some; it must have them where its statistics are of other features."""
    if isinstance(reference, SampleSet):
        return reference
    if not network.takes_statistics:
        problem = f"{reference.name} holds mu and sigma of Inception's features, and no images"
        raise ConfigError(problem, hint="use --features InceptionFeatures, or a reference with images")
    return None


def _distance(
    network: FeatureNetwork,
    samples: Features,
    statistics: FeatureStatistics | None,
    reference: Float[Tensor, "reference feature"] | None,
) -> float:
    """The Fréchet distance to statistics where there are some of the network's features, else to features.

    Args:
        network: of the features.
        samples: features of the samples.
        statistics: of the reference.
        reference: features of the reference's images.
    """
    compared = statistics if statistics is not None and network.takes_statistics else reference
    assert compared is not None, "a reference has images or statistics"
    return frechet_distance(samples, compared)


def _further_distances(
    network: FeatureNetwork, samples: SetFeatures, reference: SetFeatures, neighbours: int
) -> dict[str, float]:
    """The kernel distance, the Fréchet distance of places where the network gives them, precision and recall.

    Args:
        network: of the features.
        samples: their features.
        reference: those of real images.
        neighbours: k of precision and recall.
    """
    kernel = kernel_distance(samples.features, reference.features)
    name = network.kernel_distance_name
    found = {name: kernel.mean, f"{name}_std": kernel.std}
    if samples.spatial is not None and reference.spatial is not None:
        found[network.spatial_distance_name] = frechet_distance(samples.spatial, reference.spatial)
    return found | _shares(network, samples.features, reference.features, neighbours)


def _require_comparable(sets: list[SampleSet], training: SampleSet | None, *, svm_accuracy: bool) -> None:
    """Raises what `evaluate_samples` raises of its sets of images.

    Args:
        sets: all of them.
        training: that of the training images.
        svm_accuracy: labels will be compared.
    """
    if svm_accuracy and training is None:
        raise ConfigError("svm_accuracy has no training images", hint="give the shards that the model was trained on")
    _require_one_size(sets)
    _require_one_numbering(sets if svm_accuracy else [])


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


def _reference_notes(
    network: FeatureNetwork, reference: SampleSet | ReferenceStatistics, features: Features | None
) -> list[str]:
    """What the distance is against.

    Args:
        network: of the features.
        reference: images, statistics, or both.
        features: of the images.
    """
    if features is None:
        return [f"{reference.name} has no images: no precision and recall, and nothing that was held out"]
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
    if metrics.get("nearest_neighbour/held_out_exact_copy_share", 0.0) > 0.5:
        notes.append(f"most of {held_out} is in {training.name}: what is called held out was trained on")
    return notes


def _shares(
    network: FeatureNetwork, samples: Features, reference: Float[Tensor, "reference feature"], neighbours: int
) -> dict[str, float]:
    shares = precision_recall(samples, reference, k=neighbours)
    return {f"precision/{network.name}": shares.precision, f"recall/{network.name}": shares.recall}


def _training_metrics(
    roles: Mapping[str, SampleSet], training: SampleSet, *, svm_accuracy: bool, device: torch.device
) -> dict[str, float]:
    """How near images are to those of the training.

    Args:
        roles: images by what they are called.
        training: the training images.
        svm_accuracy: also train the support vector machine on them.
        device: that computes.
    """
    metrics: dict[str, float] = {}
    for role, images in roles.items():
        distances = nearest_neighbour_distance(images, training, device=device)
        summary = summarize_neighbours(distances, num_values=images.images[0].size)
        metrics |= {f"nearest_neighbour/{role}_{name}": value for name, value in to_json(summary).items()}
    if svm_accuracy:
        machine = SupportVectorClassifier(training)
        metrics |= {f"svm_accuracy/{role}": machine.accuracy(images) for role, images in roles.items()}
    return metrics
