"""What the parts of one image size are measured with: a network, training images and held-out ones."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from framework.core.errors import DataError
from framework.core.io import atomic_write
from framework.core.serialization import JsonDict
from framework.core.shapes import Images, Labels
from framework.evaluation.distances import frechet_distance, precision_recall
from framework.evaluation.features import FeatureNetwork, extract_features
from framework.evaluation.features.network import Features
from framework.evaluation.samples import SampleSet, dequantize_images, read_shards
from framework.evaluation.svm_accuracy import SupportVectorClassifier
from framework.pra.commands.sample_parts import weights_digest
from framework.pra.loss import parallel_rollout
from framework.pra.network.config import PRAConfig
from framework.pra.network.model import PRA
from framework.pra.network.patches import patchify, unpatchify

MOST_IMAGES = 10_000
BATCH = 250


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Measures samples of an image size.

    Attributes:
        network: of the features.
        training: images that the models were trained on, or a fair share of them.
        reference: held-out images.
    """

    network: FeatureNetwork
    training: SampleSet
    reference: SampleSet

    @classmethod
    def of_shards(cls, network: FeatureNetwork, training: str, validation: str, config: PRAConfig) -> "Judge":
        """With at most `MOST_IMAGES` images of each set.

        Args:
            network: of the features.
            training: shards.
            validation: shards of held-out images.
            config: of the models, whose size and channels the images get.
        """
        known, real = (
            read_shards(path, limit=MOST_IMAGES, image_size=config.image_size, channels=config.channels)
            for path in (training, validation)
        )
        return cls(network=network, training=known, reference=real)

    @cached_property
    def reference_features(self) -> Features:
        """Of the held-out images."""
        return self._features(self.reference)

    def metrics(self, samples: SampleSet, *, svm_accuracy: bool) -> dict[str, float]:
        """Distance, precision, recall and classes of samples, by name.

        Args:
            samples: with their classes.
            svm_accuracy: also the share whose class a support vector machine predicts.
        """
        samples = replace(samples, classes=samples.classes or self.reference.classes)
        features = self._features(samples)
        shares = precision_recall(features, self.reference_features)
        name = self.network.name
        found = {self.network.distance_name: frechet_distance(features, self.reference_features)}
        found |= {f"precision/{name}": shares.precision, f"recall/{name}": shares.recall}
        found |= self.network.sample_metrics(features)
        found |= self.network.labelled_metrics("samples", samples, features)
        if svm_accuracy:
            found["svm_accuracy/samples"] = self._machine.accuracy(samples)
        return found

    def floor(self, num: int) -> float:
        """Distance of so many training images to the held-out ones: what no model is expected to come under."""
        chosen = torch.linspace(0, len(self.training) - 1, min(num, len(self.training))).long().numpy()
        return frechet_distance(
            self._features(SampleSet(images=self.training.images[chosen], name="training images")),
            self.reference_features,
        )

    def training_images(self, num: int) -> tuple[Images, Labels]:
        """So many training images with their classes, evenly over the set, which may be sorted by class."""
        return _chosen(self.training, num)

    def held_out_images(self, num: int) -> tuple[Images, Labels]:
        """The same of held-out images."""
        return _chosen(self.reference, num)

    @cached_property
    def _machine(self) -> SupportVectorClassifier:
        return SupportVectorClassifier(self.training)

    def _features(self, images: SampleSet) -> Features:
        return extract_features(
            self.network, images.with_channels(self.network.channels or images.channels), batch_size=BATCH
        )


def _chosen(images: SampleSet, num: int) -> tuple[Images, Labels]:
    if images.labels is None:
        raise DataError(f"{images.name} has no labels", hint="give images of class folders")
    chosen = torch.linspace(0, len(images) - 1, min(num, len(images))).long()
    pixels = images.pixels(0, len(images))[chosen]
    return dequantize_images(pixels), torch.as_tensor(images.labels)[chosen]


@torch.no_grad()
def reconstruction_l1(model: PRA, images: Images, labels: Labels) -> float:
    """Absolute error per value of images that are encoded, not perturbed, and decoded in the context of decoded ones.

    That is the least error that sampling could reach: it decodes in the context of what it has decoded before. Ours.

    Args:
        model: one with an encoder, in evaluation mode, on the images' device.
        images: in [-1, 1].
        labels: their classes.
    """
    size, error = model.config.patch_size, 0.0
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH]
        tokens = patchify(part, size)
        states = model.encode(tokens).mean
        rollout = parallel_rollout(model, tokens, labels[start : start + BATCH], states, passes=1)
        decoded = unpatchify(rollout.decoded[-1].float(), size, model.config.channels)
        error += (decoded - part).abs().sum().item()
    return error / images.numel()


def keep_floor(path: Path, judge: Judge, num: int) -> None:
    """Writes `Judge.floor` to a file, with what it is of, unless that is there.

    Args:
        path: of the file.
        judge: measures it.
        num: images.
    """
    wanted = {"num": num, "features": judge.network.name, "weights_sha256": weights_digest(judge.network)}
    if path.is_file() and json.loads(path.read_bytes()).items() >= wanted.items():
        return
    found = {**wanted, "frechet_distance": judge.floor(num)}
    with atomic_write(path) as stream:
        stream.write(json.dumps(found).encode())


def read_floor(path: Path, num: int, weights_sha256: str | None) -> float | None:
    """What `keep_floor` wrote; None where that is not there, or of another number of images or network.

    Args:
        path: of the file.
        num: images.
        weights_sha256: of the network; None for the one that was trained in this folder.
    """
    found: JsonDict = json.loads(path.read_bytes()) if path.is_file() else {}
    if found.get("num") != num or weights_sha256 not in (None, found.get("weights_sha256")):
        return None
    return float(found["frechet_distance"])
