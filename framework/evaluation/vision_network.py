"""A network from elsewhere that tells classes of images, opened up: its features, its maps, its logits."""

import pickle
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from framework.core.errors import CheckpointError, ConfigError, DataError
from framework.core.shapes import Images
from framework.core.text_files import read_text

FeatureMap = Float[Tensor, "batch _ _ _"]
"""Activations [image, feature, row, column]; those of one list differ in all but the first."""
SPATIAL_CHANNELS = 7
"""Channels of the map that spatial features are made of, as ADM's evaluator takes them of Inception's."""
_LONGEST_LIST = 120
_SPATIAL_STRIDE = 16
"""The map with about so many pixels to a position: Inception's is 17 x 17 of 299 x 299."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What a network expects of its images.

    Args:
        size: side in pixels that images are resized to; None leaves them as they are.
        mean: of each channel of values in [0, 1], which is taken off them.
        std: of each channel, by which they are divided then.
    """

    size: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if (self.size is not None and self.size < 1) or min(self.std, default=0.0) <= 0:
            raise ConfigError(f"size {self.size}, std {self.std}", hint="give numbers above 0")
        if len(self.mean) != len(self.std):
            raise ConfigError(f"mean {self.mean} and std {self.std}", hint="give a value for each channel")

    def __call__(self, images: Images) -> Float[Tensor, "batch channel out_height out_width"]:
        """Images in [-1, 1] as the network takes them; differentiable."""
        size = self.size
        if size is not None and images.shape[-2:] != (size, size):
            images = F.interpolate(images, (size, size), mode="bicubic", align_corners=False, antialias=True)
        shape = (1, len(self.mean), 1, 1)
        mean, std = (torch.tensor(each, device=images.device).view(shape) for each in (self.mean, self.std))
        return ((images + 1) / 2 - mean) / std


class VisionNetwork(nn.Module):
    """A frozen network whose last linear layer gives logits; its features are what that layer reads.

    Args:
        network: from images to logits; may be of any architecture.
        preprocessing: of the images.
        head: qualified name of the last linear layer; None: the one that comes last in the network.

    Raises:
        ConfigError: no such layer.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, *, head: str | None = None) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.preprocessing = preprocessing
        layers = {name: each for name, each in network.named_modules() if isinstance(each, nn.Linear)}
        if not layers or (head is not None and head not in layers):
            named = f"named {head} " if head else ""
            near = ", ".join(list(layers)[-3:]) or "none"
            raise ConfigError(f"no linear layer {named}in {type(network).__name__}", hint=f"its last ones: {near}")
        # Not registered again: it is a part of the network already.
        self._head = (layers[head or list(layers)[-1]],)

    @property
    def head(self) -> nn.Linear:
        """The layer that reads the features."""
        return self._head[0]

    @property
    def num_classes(self) -> int:
        """That it tells apart."""
        return self.head.out_features

    def train(self, mode: bool = True) -> "VisionNetwork":
        """Stays in evaluation mode: it is never trained, and its statistics are not those of a batch."""
        return super().train(False)

    def features(self, images: Images) -> Float[Tensor, "batch feature"]:
        """What the last layer reads, of images in [-1, 1]."""
        return self._run(images, maps=False)[0]

    def maps(self, images: Images) -> list[FeatureMap]:
        """The last activation at each resolution, from fine to coarse; of a transformer, of each number of tokens."""
        return self._run(images, maps=True)[1]

    def features_and_spatial(
        self, images: Images
    ) -> tuple[Float[Tensor, "batch feature"], Float[Tensor, "batch value"]]:
        """Features, and those of places: the first channels of the map with about 16 pixels to a position (ours).

        Inception's sFID takes 7 channels of a map of 17 x 17 (Nash et al. 2021; ADM's evaluator).
        """
        features, maps = self._run(images, maps=True)
        side = self.preprocessing.size or images.shape[-1]
        wanted = (side / _SPATIAL_STRIDE) ** 2
        chosen = min(maps, key=lambda each: abs(each.shape[2] * each.shape[3] - wanted))
        return features, chosen[:, :SPATIAL_CHANNELS].flatten(1)

    def _run(self, images: Images, *, maps: bool) -> tuple[Float[Tensor, "batch feature"], list[FeatureMap]]:
        inputs: list[Shaped[Tensor, ...]] = []
        found: dict[tuple[int, int], FeatureMap] = {}

        def keep_input(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            inputs.append(arguments[0])

        def keep_map(_: nn.Module, arguments: object, output: object) -> None:
            each = _as_map(output, len(images))
            # More than one position: others are pooled already.
            if each is not None and each.shape[2] * each.shape[3] > 1:
                found[each.shape[2], each.shape[3]] = each

        leaves = [each for each in self.network.modules() if _gives_maps(each)] if maps else []
        with ExitStack() as hooks:
            hooks.callback(self.head.register_forward_pre_hook(keep_input).remove)
            for leaf in leaves:
                hooks.callback(leaf.register_forward_hook(keep_map).remove)
            self.network(self.preprocessing(images))
        if len(inputs) != 1 or inputs[0].ndim != 2:
            problem = f"the last linear layer of {type(self.network).__name__} does not read a vector of each image"
            raise ConfigError(problem, hint="name the layer that gives the logits as head")
        if maps and not found:
            raise ConfigError(f"{type(self.network).__name__} has no maps", hint="take a network of layers on images")
        return inputs[0], sorted(found.values(), key=lambda each: -each.shape[2] * each.shape[3])


def _gives_maps(module: nn.Module) -> bool:
    """Whether it is a layer that computes: what padding and attention's places for options give are no maps."""
    idle = isinstance(module, (nn.Identity, nn.Dropout)) or type(module).__module__ == nn.ZeroPad2d.__module__
    return not any(module.children()) and not idle


def _as_map(output: object, num_images: int) -> FeatureMap | None:
    # Of another length it is of windows, or has its tokens first.
    if not isinstance(output, Tensor) or not output.is_floating_point() or output.shape[:1] != (num_images,):
        return None
    if output.ndim == 4:
        # Images are squares, by which a layer that has its channels last is told: ConvNeXt's and Swin's do.
        channels_last = output.shape[1] == output.shape[2] != output.shape[3]
        return output.permute(0, 3, 1, 2) if channels_last else output
    if output.ndim == 3:  # Tokens.
        return output.transpose(1, 2)[..., None]
    return None


def read_weights(path: str | Path) -> Mapping[str, Shaped[Tensor, "..."]]:
    """Named tensors of a .safetensors file, or of one that `torch.save` wrote, alone or under `state_dict` or `model`.

    Raises:
        CheckpointError: it is missing, or not a file of mere weights.
    """
    try:
        if Path(path).suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"no weights file {path}", hint="check the path") from None
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, SafetensorError, pickle.UnpicklingError) as error:
        problem = f"{path} is not a file of weights ({type(error).__name__})"
        raise CheckpointError(
            problem, hint="give a .safetensors file, or one of torch.save with tensors alone"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(each, Tensor) for each in content.values()):
        raise CheckpointError(f"{path} holds no tensors by name", hint="save the network's state_dict()")
    return cast("Mapping[str, Shaped[Tensor, '...']]", content)


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Fills a network from a file.

    Raises:
        CheckpointError: the file is missing, damaged or of another network.
    """
    try:
        network.load_state_dict(dict(read_weights(path)))
    except RuntimeError as error:
        unlike = " ".join(str(error).splitlines()[1:2]).strip()[:_LONGEST_LIST]
        problem = f"{path} is of another network than {type(network).__name__} ({unlike} ...)"
        raise CheckpointError(
            problem, hint="give the weights of this architecture, or other arguments to it"
        ) from error


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """Names of classes, one a line in the order of the network's logits.

    Raises:
        ConfigError: the file cannot be read.
    """
    hint = "give a text file, a name a line"
    try:
        text = read_text(path, hint=hint)
    except DataError as error:
        raise ConfigError(f"class names in {path} cannot be read ({error.problem})", hint=hint) from error
    return tuple(line.strip() for line in text.splitlines() if line.strip())
