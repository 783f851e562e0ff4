"""The model of an architecture: the method and its rows with a causal transformer, or the diffusion model."""

from collections.abc import Collection

import torch

from framework.core.errors import ConfigError
from framework.pra.network.config import VARIANTS, PRAConfig
from framework.pra.network.diffusion import PixelDiffusion
from framework.pra.network.generator import ImageGenerator
from framework.pra.network.model import PRA


def build_generator(config: PRAConfig, *, seed: int = 0) -> ImageGenerator:
    """A new model.

    Args:
        config: the architecture, whose variant says which model it is.
        seed: of the initial weights; unused on the meta device.
    """
    if VARIANTS[config.variant].inputs == "diffused":
        return PixelDiffusion(config, seed=seed)
    return PRA(config, seed=seed)


def check_parts(config: PRAConfig, parts: Collection[str]) -> None:
    """Whether parts that are to be trained are parts of the model, one or more. Raises ConfigError."""
    with torch.device("meta"):
        known = [name for name, _ in build_generator(config).named_children()]
    if not parts or not set(parts) <= set(known):
        raise ConfigError(f"trainable {list(parts)}", hint=f"name parts of the model: {', '.join(known)}")


def train_only(model: ImageGenerator, parts: Collection[str] | None) -> None:
    """Only these parts, the model's direct children, need gradients; None changes nothing."""
    if parts is not None:
        for name, part in model.named_children():
            part.requires_grad_(name in parts)
