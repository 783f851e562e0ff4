import sys
from types import ModuleType
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import nn

from framework.core.errors import CheckpointError, ConfigError
from framework.evaluation.distances import inception_score
from framework.evaluation.features import InceptionFeatures

MODULE = "torch_fidelity.feature_extractor_inceptionv3"


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
    assert network.distance_name == "fid"
    many = torch.rand(40, 3)
    score = inception_score(network.class_logits(many))
    assert network.sample_metrics(many) == {"inception_score": score.mean, "inception_score_std": score.std}


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


def test_places_are_seven_channels_of_the_third_block_of_17_positions(monkeypatch, tmp_path):
    class WithBlocks(TinyInception):
        def __init__(self, *arguments, **options) -> None:
            super().__init__(*arguments, **options)
            self.Mixed_6d = nn.Module()
            self.Mixed_6d.branch1x1 = nn.PixelUnshuffle(4)

        def forward(self, images):
            self.Mixed_6d.branch1x1(images.float())
            return super().forward(images)

    fake_inception(monkeypatch, WithBlocks)
    torch.save({"fc.weight": torch.ones(4, 3), "fc.bias": torch.ones(4)}, tmp_path / "weights.pth")
    network = InceptionFeatures(str(tmp_path / "weights.pth"))
    images = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    for _ in range(2):
        features, spatial = network.with_spatial(images)
        assert torch.equal(features, network(images))
        assert spatial is not None
        assert torch.equal(spatial, nn.PixelUnshuffle(4)(images.float())[:, :7].flatten(1))
    assert (network.spatial_distance_name, network.kernel_distance_name) == ("sfid", "kid")
