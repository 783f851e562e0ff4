"""A network opened up: features, maps, places; weights from files, each fault of one named."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from framework.core.errors import CheckpointError, ConfigError
from framework.evaluation.vision_network import (
    Preprocessing,
    VisionNetwork,
    load_weights,
    read_class_names,
    read_weights,
)

AS_IT_IS = Preprocessing(size=None, mean=(0.5,), std=(0.5,))


class Tokens(nn.Module):
    """A transformer's outputs in small: tokens, then a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Linear(1, 3), nn.Identity(), nn.Linear(3, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.mix(torch.relu(self.embed(images.flatten(1)[..., None]))).mean(1))


def convolutions() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 9, 3, padding=1),
        nn.ReLU(),
        nn.ZeroPad2d(1),
        nn.Conv2d(9, 12, 3, stride=2),
        nn.BatchNorm2d(12),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 5),
    )


def test_features_are_what_the_last_layer_reads():
    network = convolutions()
    opened, images = VisionNetwork(network, AS_IT_IS), torch.rand(3, 1, 8, 8) * 2 - 1
    features = opened.features(images)
    assert torch.equal(features, network[:-1](images))
    assert torch.equal(opened.head(features), network(images))
    assert opened.num_classes == 5


def test_maps_are_the_last_of_each_resolution_without_padding_and_pooling():
    network = convolutions()
    images = torch.rand(3, 1, 8, 8)
    fine, coarse = VisionNetwork(network, AS_IT_IS).maps(images)
    torch.testing.assert_close(fine, network[:2](images))
    torch.testing.assert_close(coarse, network[:5](images))


def test_tokens_are_maps_too():
    fine, *others = VisionNetwork(Tokens(), AS_IT_IS).maps(torch.rand(2, 1, 4, 4))
    assert fine.shape == (2, 3, 16, 1)
    assert others == []


class ChannelsLast(nn.Module):
    """ConvNeXt's and Swin's outputs in small: features as the last axis, and windows as further images."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.windows, self.head = (
            nn.Conv2d(1, 6, 2, 2),
            nn.LayerNorm(6),
            nn.Linear(6, 6),
            nn.Linear(6, 2),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.embed(images).permute(0, 2, 3, 1))
        return self.head(self.windows(x.reshape(-1, 4, 6)).reshape(len(images), -1, 6).mean(1))


def test_channels_that_come_last_are_channels():
    network, images = ChannelsLast(), torch.rand(2, 1, 8, 8)
    (found,) = VisionNetwork(network, AS_IT_IS).maps(images)
    torch.testing.assert_close(found, network.norm(network.embed(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


def test_places_are_the_first_channels_of_the_map_of_sixteen_pixels_to_a_position():
    network, images = convolutions(), torch.rand(2, 1, 8, 8)
    opened = VisionNetwork(network, AS_IT_IS)
    features, spatial = opened.features_and_spatial(images)
    # Of 8 x 8 and 4 x 4 positions the second is nearer.
    torch.testing.assert_close(spatial, network[:5](images)[:, :7].flatten(1))
    assert torch.equal(features, opened.features(images))


def test_it_is_never_trained():
    opened = VisionNetwork(convolutions(), AS_IT_IS).train()
    images = (torch.rand(4, 1, 8, 8)).requires_grad_()
    before = opened.features(images)
    before.sum().backward()
    assert images.grad is not None
    assert not any(each.requires_grad or each.training for each in opened.parameters() if isinstance(each, nn.Module))
    assert all(each.grad is None for each in opened.parameters())
    assert torch.equal(opened.features(images), before)


def test_preprocessing_by_hand():
    images = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    ready = Preprocessing(size=None, mean=(0.0, 0.25, 0.5), std=(1.0, 0.5, 0.25))(images)
    assert ready[0, :, 0, 0].tolist() == [0.0, 0.5, 2.0]
    larger = Preprocessing(size=5, mean=(0.0,) * 3, std=(1.0,) * 3)(images)
    assert larger.shape == (1, 3, 5, 5)
    torch.testing.assert_close(larger[0, 2], torch.ones(5, 5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size 0"),
        ({"std": (0.0, 1.0, 1.0)}, "std"),
        ({"mean": (0.5,)}, "a value for each channel"),
    ],
)
def test_preprocessing_that_cannot_be(options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        Preprocessing(**{"size": 8, "mean": (0.5,) * 3, "std": (0.5,) * 3, **options})


def test_a_network_without_such_a_layer_is_refused():
    with pytest.raises(ConfigError, match=r"no linear layer in Sequential: its last ones: none"):
        VisionNetwork(nn.Sequential(nn.Conv2d(1, 1, 1)), AS_IT_IS)
    with pytest.raises(ConfigError, match=r"no linear layer named fc in Sequential: its last ones: 7"):
        VisionNetwork(convolutions(), AS_IT_IS, head="fc")
    spread = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(ConfigError, match="does not read a vector of each image"):
        VisionNetwork(spread, AS_IT_IS).features(torch.rand(2, 1, 4, 4))
    flat = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    with pytest.raises(ConfigError, match="has no maps"):
        VisionNetwork(flat, AS_IT_IS).maps(torch.rand(2, 1, 4, 4))


@pytest.mark.parametrize("kind", ["safetensors", "plain", "state_dict"])
def test_weights_of_each_kind_of_file(tmp_path: Path, kind: str):
    state = convolutions().state_dict()
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state} if kind == "state_dict" else state, path)
    torch.manual_seed(1)
    network = nn.Sequential(*convolutions())
    nn.init.zeros_(network[0].weight)
    load_weights(network, path)
    assert torch.equal(network[0].weight, state["0.weight"])


def test_faults_of_weights_are_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"no weights file .*nowhere.pth"):
        read_weights(tmp_path / "nowhere.pth")
    for name in ("noise.pth", "noise.safetensors"):
        (tmp_path / name).write_bytes(b"noise")
        with pytest.raises(CheckpointError, match="is not a file of weights"):
            read_weights(tmp_path / name)
    torch.save(nn.Linear(1, 1), tmp_path / "module.pth")
    with pytest.raises(CheckpointError, match="is not a file of weights"):
        read_weights(tmp_path / "module.pth")
    torch.save({"a": [1, 2]}, tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds no tensors by name"):
        read_weights(tmp_path / "list.pth")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"of another network than Sequential \(Missing key"):
        load_weights(convolutions(), tmp_path / "other.pth")


def test_class_names_are_lines(tmp_path: Path):
    (tmp_path / "names.txt").write_text("cat\n\n dog \n")
    assert read_class_names(tmp_path / "names.txt") == ("cat", "dog")
    with pytest.raises(ConfigError, match=r"class names in .*none.txt cannot be read"):
        read_class_names(tmp_path / "none.txt")
