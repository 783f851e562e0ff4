"""What a trained model sees in an image: hidden states of every depth as one vector each, for probes."""

from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from framework.core.shapes import Images
from framework.pra.loss import parallel_rollout
from framework.pra.network.diffusion import PixelDiffusion
from framework.pra.network.generator import ImageGenerator
from framework.pra.network.head import LAST_TIME
from framework.pra.network.model import PRA
from framework.pra.network.patches import patchify
from framework.pra.shapes import Hidden

Position = Literal["mean", "last"]
Inputs = Literal["clean", "decoded"]


@torch.no_grad()
def depth_features(
    model: ImageGenerator, images: Images, *, position: Position = "mean", inputs: Inputs = "clean"
) -> list[Float[Tensor, "batch hidden"]]:
    """Features of the transformer before its first layer and after each; no class is shown to it.

    A linear probe of the transformer's hidden states is arXiv 2606.27978; which positions are read is ours. That of
    `diffusion` reads clean pixels as they lie near the end of the flow, at `LAST_TIME` without the noise.

    Args:
        model: in evaluation mode, on the images' device.
        images: in [-1, 1].
        position: `mean` over the raster, or the `last` one, which has read all pixel tokens but one.
        inputs: `clean` pixels, or pixels `decoded` from the image's intermediate states in their context, as in
            training but without noise.
    """
    tokens = patchify(images, model.config.patch_size)
    labels = torch.full((len(images),), model.config.num_classes, device=images.device)
    if isinstance(model, PixelDiffusion):
        time = torch.full((len(images),), LAST_TIME, device=images.device)
        return _pooled(model.denoiser.depths(LAST_TIME * tokens, time, labels), position)
    assert isinstance(model, PRA)
    if inputs == "decoded" and model.encoder is not None:
        states = model.encode(tokens).mean
        tokens = parallel_rollout(model, tokens, labels, states, passes=1).inputs
    return _pooled(model.transformer.depths(tokens, labels), position)


def _pooled(states: Iterable[Hidden], position: Position) -> list[Float[Tensor, "batch hidden"]]:
    return [each.mean(1).float() if position == "mean" else each[:, -1].float() for each in states]
