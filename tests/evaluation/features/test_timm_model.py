"""timm's models: by a stand-in of the package, whose weights and sizes are taken; its faults are named."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from framework.core.errors import CheckpointError, ConfigError
from framework.evaluation.features import TimmFeatures


def network() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> None:
    package, data, config = ModuleType("timm"), ModuleType("timm.data"), ModuleType("timm.data.config")

    def create_model(name: str, *, pretrained: bool) -> nn.Module:
        if name != "tiny":
            raise RuntimeError(f"Unknown model ({name})")
        if pretrained:
            raise OSError("no connection")
        return network()

    def resolve_data_config(arguments: dict[str, Any], *, model: nn.Module) -> dict[str, Any]:
        return {"input_size": (3, 6, 6), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

    package.create_model, config.resolve_data_config = create_model, resolve_data_config  # type: ignore[attr-defined]
    for each in (package, data, config):
        monkeypatch.setitem(sys.modules, each.__name__, each)


@pytest.mark.usefixtures("timm")
def test_a_model_with_its_own_size_and_a_file_of_weights(tmp_path: Path):
    state = {"2.weight": torch.ones(2, 3), "2.bias": torch.zeros(2)}
    torch.save(state, tmp_path / "tiny.pth")
    features = TimmFeatures("tiny", str(tmp_path / "tiny.pth"))
    assert (features.name, features.channels, features.vision.preprocessing.size) == ("tiny", 3, 6)
    white = torch.full((2, 3, 4, 4), 255, dtype=torch.uint8)
    torch.testing.assert_close(features(white), torch.ones(2, 3))
    torch.testing.assert_close(features.class_logits(features(white)), torch.full((2, 2), 3.0))
    assert TimmFeatures("tiny", str(tmp_path / "tiny.pth"), size=9).vision.preprocessing.size == 9


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("other", "x.pth"), ConfigError, r"gives no model other \(Unknown model"),
        (("tiny",), ConfigError, r"no connection.*fetch the weights elsewhere"),
        (("tiny", "nowhere.pth"), CheckpointError, "no weights file nowhere.pth"),
    ],
)
def test_faults_are_named(arguments: tuple[str, ...], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        TimmFeatures(*arguments)


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"framework\[timm\]"):
        TimmFeatures("tiny")
