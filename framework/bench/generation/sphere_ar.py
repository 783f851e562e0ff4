"""SphereAR's public code as something to measure against, from a folder of the user's.

github.com/guolinke/SphereAR (arXiv 2509.24335): a causal transformer with a diffusion head for each token, of the same
kind as ours, over the latents of an autoencoder. Nothing of it is part of this repository.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from framework.core.errors import ConfigError
from framework.pra.network.config import PRAConfig
from framework.pra.sampling import SamplerConfig

ADAPTIVE_NORMS = 2
"""Modulations that all blocks of its head share, as in its own sizes B and L."""


def load_sphere_ar(folder: Path, config: PRAConfig) -> nn.Module:
    """Its model with random weights and the sizes of one of ours: image, tokens, state, transformer, head.

    Where flash-attn is not installed torch's attention stands in for it.

    Args:
        folder: a checkout.
        config: our architecture.

    Raises:
        ConfigError: the folder is not a checkout.
    """
    if not (folder / "SphereAR" / "model.py").is_file():
        raise ConfigError(f"{folder} has no SphereAR/model.py", hint="clone github.com/guolinke/SphereAR there")
    if "flash_attn" not in sys.modules and importlib.util.find_spec("flash_attn") is None:
        stand_in = ModuleType("flash_attn")
        stand_in.flash_attn_func = attention  # pyright: ignore[reportAttributeAccessIssue]
        sys.modules["flash_attn"] = stand_in
    sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module("SphereAR.model")
    finally:
        sys.path.remove(str(folder))
    model: nn.Module = module.SphereAR(
        dim=config.width,
        n_layer=config.depth,
        n_head=config.num_heads,
        diff_layers=config.head_depth,
        diff_dim=config.head_width,
        diff_adanln_layers=ADAPTIVE_NORMS,
        latent_dim=config.state_size,
        patch_size=config.patch_size,
        resolution=config.image_size,
        diff_batch_mul=4,
        cls_token_num=config.class_tokens,
        num_classes=config.num_classes,
    )
    return model


def sampling_with(model: nn.Module, config: SamplerConfig, num_images: int) -> Callable[[], Tensor]:
    """Draws a batch of images of its first class.

    Args:
        model: of `load_sphere_ar`.
        config: our sampler: as many calls of the head, one of which is its last step's, and the guidance.
        num_images: of the batch.
    """
    labels = torch.zeros(num_images, dtype=torch.long)

    def draw() -> Tensor:
        return model.eval().sample(labels, config.steps - 1, config.guidance)  # pyright: ignore

    return draw


def training_with(model: nn.Module, config: PRAConfig, num_images: int) -> Callable[[], Tensor]:
    """Makes a forward and a backward pass of its second stage, whose autoencoder is frozen.

    Args:
        model: of `load_sphere_ar`.
        config: our architecture.
        num_images: of the batch.
    """
    images, labels = torch.rand(num_images, 3, config.image_size, config.image_size) * 2 - 1, torch.arange(num_images)

    def step() -> Tensor:
        loss = model.train()(images, labels % config.num_classes)[0]
        loss.backward()
        model.zero_grad()
        return loss.detach()

    return step


def attention(
    q: Float[Tensor, "batch position head value"],
    k: Float[Tensor, "batch position head value"],
    v: Float[Tensor, "batch position head value"],
    causal: bool = False,
    dropout_p: float = 0.0,
) -> Float[Tensor, "batch position head value"]:
    """What flash-attn's function of that name computes.

    Args:
        q: queries.
        k: keys.
        v: values.
        causal: positions see only earlier ones and themselves.
        dropout_p: rate of dropped weights.
    """
    q, k, v = (each.transpose(1, 2) for each in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal, dropout_p=dropout_p).transpose(1, 2)
