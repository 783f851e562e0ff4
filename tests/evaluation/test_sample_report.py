import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from framework.core.errors import ConfigError, DataError
from framework.evaluation.classifier import ClassifierConfig, ImageClassifier, save_classifier
from framework.evaluation.distances import frechet_distance
from framework.evaluation.features import (
    ClassifierFeatures,
    FeatureNetwork,
    InceptionFeatures,
    PixelFeatures,
    extract_features,
)
from framework.evaluation.sample_report import evaluate_samples
from framework.evaluation.samples import FeatureStatistics, ReferenceStatistics, SampleSet, read_npz, write_npz


@pytest.mark.slow
def test_digits_written_as_rgb_are_measured_as_the_gray_images_they_are(digits, tmp_path):
    training, held_out = digits
    write_npz(tmp_path / "samples.npz", held_out)
    report = evaluate_samples(
        read_npz(tmp_path / "samples.npz"), held_out, network=PixelFeatures(), training=training, svm_accuracy=True
    )
    assert report.num_features == 64
    assert report.metrics["frechet_distance/pixels"] == pytest.approx(0, abs=1e-6)
    assert report.metrics["precision/pixels"] == report.metrics["recall/pixels"] == 1
    assert report.metrics["nearest_neighbour/samples_median_l2"] > 0.5
    for name in ("median_l2", "mean_l2", "exact_copy_share", "near_copy_share"):
        samples, real = (report.metrics[f"nearest_neighbour/{role}_{name}"] for role in ("samples", "held_out"))
        assert samples == real
    assert report.metrics["svm_accuracy/samples"] >= 0.98
    assert report.metrics["svm_accuracy/held_out"] >= 0.98
    assert (report.num_samples, report.num_reference, report.num_training) == (360, 360, 1437)
    assert report.notes == ()
    assert not [name for name in report.metrics if "fid" in name or "inception" in name]

    report.to_json(tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["metrics"] == dict(report.metrics)
    assert written["num_reference"] == 360
    console = Console(record=True, width=100)
    console.print(report.table())
    assert "frechet_distance/pixels" in console.export_text()


def test_notes_say_what_to_beware_of(digits):
    training, _ = digits
    few = SampleSet(images=training.images[:64], name="few")
    report = evaluate_samples(few, training, network=PixelFeatures(), training=training)
    assert len(report.notes) == 2
    assert "few: 64 images for 64 features" in report.notes[0]
    assert "held out was trained on" in report.notes[1]
    assert report.metrics["nearest_neighbour/samples_exact_copy_share"] == 1


@pytest.mark.slow
def test_a_classifier_gives_its_name_and_the_class_accuracy(digits, tmp_path):
    _, held_out = digits
    config = ClassifierConfig(num_classes=10, channels=1, width=8, name="untrained")
    save_classifier(tmp_path / "classifier.safetensors", ImageClassifier(config))
    network = ClassifierFeatures(str(tmp_path / "classifier.safetensors"))
    unlabelled = SampleSet(images=held_out.images)
    metrics = evaluate_samples(unlabelled, held_out, network=network).metrics
    assert set(metrics) == {
        "frechet_distance/untrained",
        "kernel_distance/untrained",
        "kernel_distance/untrained_std",
        "precision/untrained",
        "recall/untrained",
        "class_accuracy_reference/untrained",
    }


class StandInInception(InceptionFeatures):
    """Inception's place taken by pixels, to see what its results are called."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def forward(self, images):
        return images.float().mean(dim=(2, 3)) + torch.rand(len(images), 3)

    def with_spatial(self, images):
        return self(images), images[:, :, :2].flatten(1).float()

    def class_logits(self, features):
        return features


def test_only_inception_gives_fid(digits):
    _, held_out = digits
    metrics = evaluate_samples(held_out, held_out, network=StandInInception()).metrics
    assert set(metrics) == {
        "fid",
        "kid",
        "kid_std",
        "sfid",
        "precision/inception",
        "recall/inception",
        "inception_score",
        "inception_score_std",
    }


def test_statistics_of_the_reference_give_the_fid_and_nothing_else(digits):
    class StandIn(StandInInception):
        def forward(self, images):
            return images.float().mean(dim=(2, 3)) + torch.linspace(0, 1, len(images))[:, None] * torch.tensor(
                [1, 2, 3]
            )

    training, held_out = digits
    statistics = FeatureStatistics(mean=np.array([80.0, 81.0, 82.0]), covariance=np.diag([9.0, 4.0, 1.0]))
    reference = replace(held_out, statistics=statistics, name="batch")
    report = evaluate_samples(training, reference, network=StandIn())
    plain = evaluate_samples(training, held_out, network=StandIn())
    features = extract_features(StandIn(), training.with_channels(3), batch_size=256)
    assert report.metrics["fid"] == frechet_distance(features, statistics) != plain.metrics["fid"]
    assert report.metrics["recall/inception"] == plain.metrics["recall/inception"]
    assert report.notes == ("fid is against mu and sigma in batch, not against its 360 images",)
    report = evaluate_samples(training, reference, network=PixelFeatures())
    assert report.metrics == evaluate_samples(training, held_out, network=PixelFeatures()).metrics
    assert report.notes == ("mu and sigma in batch are not used: they are of Inception's features",)


def test_a_reference_of_statistics_alone_gives_the_fid(digits):
    training, held_out = digits
    statistics = FeatureStatistics(mean=np.array([80.0, 81.0, 82.0]), covariance=np.diag([9.0, 4.0, 1.0]))
    reference = ReferenceStatistics(statistics=statistics, name="batch")
    network = StandInInception()
    network.forward = lambda images: images[:, :, :3, 4].float().mean(dim=1)
    report = evaluate_samples(held_out, reference, network=network, training=training, svm_accuracy=True)
    features = extract_features(network, held_out.with_channels(3), batch_size=256)
    assert report.metrics["fid"] == frechet_distance(features, statistics)
    assert report.metrics["svm_accuracy/samples"] > 0.9
    assert not [name for name in report.metrics if "held_out" in name or "precision" in name]
    assert (report.reference, report.num_reference) == ("batch", 0)
    assert report.notes == ("batch has no images: no precision and recall, and nothing that was held out",)
    console = Console(record=True, width=100)
    console.print(report.table())
    assert "360 samples against mu and sigma of the reference" in console.export_text()
    with pytest.raises(
        ConfigError, match="batch holds mu and sigma of Inception's features, and no images: use --feat"
    ):
        evaluate_samples(held_out, reference, network=PixelFeatures())


def test_labels_of_other_numberings_are_not_compared(digits):
    training, held_out = (replace(each, classes=tuple("0123456789")) for each in digits)
    others = replace(held_out, classes=tuple("1023456789"), name="others")
    with pytest.raises(
        DataError, match=r"held-out digits and others number their classes otherwise .*'1' was class 1 and is 0"
    ):
        evaluate_samples(held_out, others, network=PixelFeatures(), training=training, svm_accuracy=True)
    # Without labels in the measure it does not matter.
    assert "recall/pixels" in evaluate_samples(held_out, others, network=PixelFeatures()).metrics


def test_any_network_of_the_user_serves(digits):
    class Mean(FeatureNetwork):
        name = "mean"

        def forward(self, images):
            return images.float().mean(dim=(1, 2, 3))[:, None]

    _, held_out = digits
    assert "frechet_distance/mean" in evaluate_samples(held_out, held_out, network=Mean()).metrics


def test_sets_that_cannot_be_compared_are_refused(digits):
    training, held_out = digits
    with pytest.raises(ConfigError, match="no training images"):
        evaluate_samples(held_out, held_out, network=PixelFeatures(), svm_accuracy=True)
    large = SampleSet(images=np.zeros((9, 16, 16, 1), np.uint8), name="large")
    with pytest.raises(DataError, match=r"large.*image_size"):
        evaluate_samples(held_out, large, network=PixelFeatures())
    with pytest.raises(DataError, match="3 samples"):
        evaluate_samples(SampleSet(images=held_out.images[:3]), held_out, network=PixelFeatures())
    unlabelled = SampleSet(images=held_out.images)
    with pytest.raises(DataError, match="no labels"):
        evaluate_samples(unlabelled, held_out, network=PixelFeatures(), training=training, svm_accuracy=True)
