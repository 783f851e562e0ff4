"""The command `evaluate`: all measures of samples in one report."""

import json
from pathlib import Path

import numpy as np
import pytest

from framework.cli.main import main
from framework.core.errors import ConfigError
from framework.evaluation.features import PixelFeatures
from framework.pra.commands.evaluate import evaluate
from framework.testing.images import make_image_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data")
    make_image_shards(folder, classes=("a", "b", "c"), per_class=6, size=4, mode="L")
    return str(folder / "shards")


@pytest.mark.slow
def test_samples_against_real_images(trained: Path, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    samples, out = str(tmp_path / "samples.npz"), tmp_path / "report.json"
    main(["sample", str(trained), samples, "--num", "20", "--sampler.steps", "2", "--device", "cpu"])
    options = ["--features", "PixelFeatures", "--training", shards, "--svm_accuracy", "true", "--device", "cpu"]
    main(["evaluate", samples, shards, *options, "--checkpoint", str(trained), "--gap_images", "4", "--out", str(out)])
    report = json.loads(out.read_text())
    metrics = report["metrics"]
    assert (report["num_samples"], report["num_reference"], report["num_features"]) == (20, 18, 16)
    assert metrics["frechet_distance/pixels"] > 0
    # The reference is the training set itself.
    assert metrics["nearest_neighbour/held_out_exact_copy_share"] == 1
    assert metrics["svm_accuracy/held_out"] > 0.5
    assert 0 <= metrics["svm_accuracy/samples"] <= 1
    ratio = metrics["rollout_gap/flow_mse_rollouts"] / metrics["rollout_gap/flow_mse_training_inputs"]
    assert metrics["rollout_gap/ratio"] == pytest.approx(ratio)
    assert "svm_accuracy/samples" in capsys.readouterr().out


def test_a_machine_without_training_images_is_refused(trained: Path, shards: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", shards, shards, "--features", "PixelFeatures", "--svm_accuracy", "true", "--device", "cpu"])
    assert stopped.value.code == 2
    assert "svm_accuracy has no training images" in capsys.readouterr().err


def test_the_report_does_not_take_the_place_of_what_is_read(shards: str, tmp_path: Path):
    (tmp_path / "samples.npz").write_bytes(b"samples")
    with pytest.raises(ConfigError, match=r"samples.npz is what is read"):
        evaluate(str(tmp_path / "samples.npz"), shards, features=PixelFeatures(), out=str(tmp_path / "samples.npz"))
    assert (tmp_path / "samples.npz").read_bytes() == b"samples"


def test_statistics_alone_are_of_no_use_for_a_rollout_gap(shards: str, tmp_path: Path):
    np.savez(tmp_path / "reference.npz", mu=np.zeros(4), sigma=np.eye(4))
    paths = shards, str(tmp_path / "reference.npz")
    out = str(tmp_path / "metrics.json")
    with pytest.raises(ConfigError, match=r"mu and sigma alone, and a rollout gap needs images: give .* --training"):
        evaluate(*paths, features=PixelFeatures(), checkpoint="run", out=out)
    with pytest.raises(ConfigError, match="holds mu and sigma of Inception's features, and no images"):
        evaluate(*paths, features=PixelFeatures(), out=out)
