"""The row `diffusion`: a pixel diffusion transformer, which denoises all tokens of an image together."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from framework.core.init import initialise
from framework.core.shapes import Labels
from framework.pra.network.config import PRAConfig
from framework.pra.network.generator import ImageGenerator
from framework.pra.network.head import TimeEmbedding, clean_velocity
from framework.pra.network.layers import Attention, Embedding, Linear, Rotary2d, SwiGLU, rms_norm
from framework.pra.shapes import ImageTimes, PixelTokens, ResidualStream


class ModulatedTransformerBlock(nn.Module):
    """The layers of `TransformerBlock`, without a causal mask, modulated by a condition (adaLN-zero, Peebles 2023).

    Args:
        width: of the residual stream.
        num_heads: attention heads.
        condition_width: values of the condition.
        gain: factor on the initial weights of the two projections into the residual stream.
    """

    def __init__(self, width: int, num_heads: int, *, condition_width: int, gain: float = 1.0) -> None:
        super().__init__()
        self.modulation = Linear(condition_width, 6 * width, gain=0.0)
        self.attention_norm = rms_norm(width)
        self.attention = Attention(width, num_heads, causal=False, gain=gain)
        self.feed_forward_norm = rms_norm(width)
        self.feed_forward = SwiGLU(width, gain=gain)

    def forward(self, x: ResidualStream, rotary: Rotary2d, condition: Float[Tensor, "batch context"]) -> ResidualStream:
        """The residual stream after this layer.

        Args:
            x: the residual stream.
            rotary: turns queries and keys.
            condition: of each image.
        """
        parts = self.modulation(F.silu(condition))[:, None].chunk(6, dim=-1)
        shift, scale, gate, second_shift, second_scale, second_gate = parts
        x = x + gate * self.attention(self.attention_norm(x) * (1 + scale) + shift, rotary)
        y = self.feed_forward_norm(x) * (1 + second_scale) + second_shift
        return x + second_gate * self.feed_forward(y)


class Denoiser(nn.Module):
    """Bidirectional transformer from a noisy image, its time and its class to the clean image.

    The network puts out the clean pixels, however far from them its input is (Li and He 2025, JiT, arXiv 2511.13720,
    section 4); time and class modulate its layers (Peebles 2023, DiT). Class `num_classes` is the null class of
    guidance. Layers are those of the other rows.

    Args:
        side: patches along one side of an image.
        pixel_size: values of a pixel token.
        num_classes: classes, without the null class.
        width: of the residual stream.
        depth: layers.
        num_heads: attention heads of a layer.
        condition_width: values that time and class are embedded in.
        gain: factor on the initial weights of the projections into the residual stream.
    """

    def __init__(
        self,
        *,
        side: int,
        pixel_size: int,
        num_classes: int,
        width: int,
        depth: int,
        num_heads: int,
        condition_width: int,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.time_embedding = TimeEmbedding(condition_width)
        self.class_embedding = Embedding(num_classes + 1, condition_width)
        self.project_in = Linear(pixel_size, width)
        self.rotary = Rotary2d(side=side, prefix=0, head_width=width // num_heads)
        self.blocks = nn.ModuleList(
            ModulatedTransformerBlock(width, num_heads, condition_width=condition_width, gain=gain)
            for _ in range(depth)
        )
        self.norm = rms_norm(width)
        self.modulation = Linear(condition_width, 2 * width, gain=0.0)
        self.project_out = Linear(width, pixel_size, gain=0.0)

    def forward(self, x: PixelTokens, time: ImageTimes, labels: Labels) -> PixelTokens:
        """The clean pixel tokens.

        Args:
            x: the noisy ones, on the path from noise to data.
            time: t in [0, 1], one of each image.
            labels: classes, with the null class among them.
        """
        condition, states = self._states(x, time, labels)
        shift, scale = self.modulation(F.silu(condition))[:, None].chunk(2, dim=-1)
        return self.project_out(self.norm(states[-1]) * (1 + scale) + shift)

    def depths(self, x: PixelTokens, time: ImageTimes, labels: Labels) -> Sequence[ResidualStream]:
        """The residual stream before the first layer and after each; no norm.

        Args:
            x: the noisy pixel tokens.
            time: t in [0, 1], one of each image.
            labels: classes, with the null class among them.
        """
        return self._states(x, time, labels)[1]

    def _states(
        self, x: PixelTokens, time: ImageTimes, labels: Labels
    ) -> tuple[Float[Tensor, "batch context"], list[ResidualStream]]:
        condition = self.time_embedding(time) + self.class_embedding(labels)
        # The residual stream keeps its precision under autocast.
        states = [self.project_in(x).to(self.norm.weight.dtype)]
        for block in self.blocks:
            states.append(block(states[-1], self.rotary, condition))
        return condition, states


class PixelDiffusion(ImageGenerator):
    """A pixel diffusion transformer (JiT, arXiv 2511.13720): nothing is causal, one flow for a whole image.

    Attributes:
        denoiser: noisy image to clean image.

    Args:
        config: the architecture, whose `head_width` is the width of the condition; settings of the causal transformer's
            class tokens, of head, decoder and encoder are unused.
        seed: of the initial weights; unused on the meta device.
    """

    BLOCKS: ClassVar[tuple[type[nn.Module], ...]] = (ModulatedTransformerBlock,)
    PARTS: ClassVar[Mapping[str, Sequence[str]]] = {"denoiser": ("depths",)}

    def __init__(self, config: PRAConfig, *, seed: int = 0) -> None:
        super().__init__(config)
        self.denoiser = Denoiser(
            side=config.image_size // config.patch_size,
            pixel_size=config.pixel_size,
            num_classes=config.num_classes,
            width=config.width,
            depth=config.depth,
            num_heads=config.num_heads,
            condition_width=config.head_width,
            gain=(2 * config.depth) ** -0.5,
        )
        initialise(self, seed)

    def velocity(self, x: PixelTokens, time: ImageTimes, labels: Labels) -> PixelTokens:
        """Velocity of the flow at a noisy image: that of the clean one that the denoiser sees there.

        Args:
            x: the point x_t of the path.
            time: t in [0, 1), one of each image.
            labels: classes, with the null class among them.
        """
        return clean_velocity(self.denoiser(x, time, labels).float(), x, time[:, None])
