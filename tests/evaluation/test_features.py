import sys
from types import ModuleType
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn

from framework.core.errors import CheckpointError, ConfigError, DataError
from framework.evaluation.features import FeatureNetwork, InceptionFeatures, PixelFeatures, extract_features
from framework.evaluation.samples import SampleSet

MODULE = "torch_fidelity.feature_extractor_inceptionv3"


def test_pixel_features_by_hand():
    images = SampleSet(images=np.array([[[[0, 51], [102, 255]]]], np.uint8).reshape(1, 2, 2, 1))
    assert extract_features(PixelFeatures(), images, batch_size=8).tolist() == [pytest.approx([0, 0.2, 0.4, 1])]


def test_features_do_not_depend_on_the_batch_size():
    images = SampleSet(images=np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), np.uint8))
    whole = extract_features(PixelFeatures(), images, batch_size=7)
    assert torch.equal(extract_features(PixelFeatures(), images, batch_size=3), whole)
    with pytest.raises(ConfigError, match="batch size 0"):
        extract_features(PixelFeatures(), images, batch_size=0)


def test_features_that_are_not_finite_are_refused():
    class Broken(FeatureNetwork):
        name = "broken"

        def forward(self, images):
            return torch.full((len(images), 4), torch.nan)

    with pytest.raises(DataError, match="broken gives features"):
        extract_features(Broken(), SampleSet(images=np.zeros((2, 8, 8, 3), np.uint8)), batch_size=2)


def test_a_recipe_names_any_network_by_class_path():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=FeatureNetwork)
    config = parser.parse_args(["--network=framework.evaluation.features.PixelFeatures"])
    assert isinstance(parser.instantiate(config).network, PixelFeatures)


def fake_inception(monkeypatch, extractor: Any) -> None:
    fake = ModuleType(MODULE)
    fake.URL_INCEPTION_V3 = "https://example.org/inception.pth"  # type: ignore[attr-defined]
    fake.FeatureExtractorInceptionV3 = extractor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, MODULE, fake)


class TinyInception(nn.Module):
    def __init__(self, name, features_list, feature_extractor_weights_path) -> None:
        super().__init__()
        assert features_list == ["2048"]
        self.fc = nn.Linear(3, 4)
        if feature_extractor_weights_path is None:
            raise URLError("no network")
        self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=True))

    def forward(self, images):
        return (images.float().mean(dim=(2, 3)),)


def test_inception_reads_given_weights(monkeypatch, tmp_path):
    fake_inception(monkeypatch, TinyInception)
    weights = {"fc.weight": torch.ones(4, 3), "fc.bias": torch.ones(4)}
    torch.save(weights, tmp_path / "weights.pth")
    network = InceptionFeatures(str(tmp_path / "weights.pth"))
    features = network(torch.full((2, 3, 8, 8), 2, dtype=torch.uint8))
    assert features.tolist() == [[2, 2, 2]] * 2
    assert network.class_logits(features).tolist() == [[6] * 4] * 2  # without the bias


def test_inception_of_a_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ConfigError, match=r"framework\[inception\]"):
        InceptionFeatures()


def test_inception_of_a_failed_download(monkeypatch):
    fake_inception(monkeypatch, TinyInception)
    with pytest.raises(ConfigError, match=r"could not be downloaded.*fetch https://example.org.*as weights"):
        InceptionFeatures()


def test_inception_of_bad_weights(monkeypatch, tmp_path):
    fake_inception(monkeypatch, TinyInception)
    with pytest.raises(CheckpointError, match="no weights file"):
        InceptionFeatures(str(tmp_path / "none.pth"))
    (tmp_path / "damaged.pth").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="not a file of weights"):
        InceptionFeatures(str(tmp_path / "damaged.pth"))
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="does not fit Inception"):
        InceptionFeatures(str(tmp_path / "other.pth"))


def test_inception_weights_that_would_run_code_are_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"payload": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="not a file of weights"):
        InceptionFeatures(str(tmp_path / "evil.pth"))
