"""The causal transformer: a class and the pixel tokens so far, to the hidden state of the next token."""

from collections.abc import Iterator

import torch
from torch import nn

from framework.core.param_tags import NO_DECAY, tag
from framework.core.shapes import Labels
from framework.pra.network.layers import EMBEDDING_STD, Embedding, KVCache, Linear, Rotary2d, TransformerBlock, rms_norm
from framework.pra.shapes import Hidden, PixelTokens, ResidualStream


class CausalTransformer(nn.Module):
    """Decoder-only transformer over `[class tokens | pixel tokens]`.

    The hidden state at raster position i depends on the class and on the pixel tokens before i, never on token i or
    a later one. Class `num_classes` is the null class of classifier-free guidance (Ho and Salimans 2022). Pre-RMSNorm,
    SwiGLU, 2-D rotary positions and QK-norm (ours).

    Args:
        side: patches along one side of an image.
        pixel_size: values of a pixel token.
        num_classes: classes, without the null class.
        class_tokens: positions at the start of the sequence that carry the class.
        width: of the residual stream.
        depth: layers.
        num_heads: attention heads of a layer; `width / num_heads` is a multiple of 4.
        gain: factor on the initial weights of the projections into the residual stream.
    """

    def __init__(
        self,
        *,
        side: int,
        pixel_size: int,
        num_classes: int,
        class_tokens: int,
        width: int,
        depth: int,
        num_heads: int,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_tokens, self.num_classes, self.num_heads = side**2, num_classes, num_heads
        self.class_embedding = Embedding(num_classes + 1, width)
        self.class_slots = tag(nn.Parameter(torch.empty(class_tokens, width)), NO_DECAY)
        self.project_in = Linear(pixel_size, width)
        self.rotary = Rotary2d(side=side, prefix=class_tokens, head_width=width // num_heads)
        self.blocks = nn.ModuleList(TransformerBlock(width, num_heads, causal=True, gain=gain) for _ in range(depth))
        self.norm = rms_norm(width)

    def reset_parameters(self) -> None:
        """Fill the class positions' own vectors; the layers fill theirs."""
        nn.init.normal_(self.class_slots, std=EMBEDDING_STD)

    @property
    def null_class(self) -> int:
        """Label that stands for "no class"."""
        return self.num_classes

    def forward(self, tokens: PixelTokens, labels: Labels) -> Hidden:
        """Hidden states of all positions at once, from a whole image's pixel tokens (the last one is not read)."""
        x = self._inputs(tokens, labels)
        for block in self.blocks:
            x = block(x, self.rotary)
        return self.norm(x[:, -tokens.shape[1] :])

    def depths(self, tokens: PixelTokens, labels: Labels) -> Iterator[Hidden]:
        """The residual stream at the positions of `forward`, before the first layer and after each; no norm."""
        x = self._inputs(tokens, labels)
        yield x[:, -tokens.shape[1] :]
        for block in self.blocks:
            x = block(x, self.rotary)
            yield x[:, -tokens.shape[1] :]

    def begin(self, labels: Labels) -> tuple[Hidden, KVCache]:
        """Hidden state of the first position (`batch 1 hidden`) and the cache that `step` goes on with."""
        x = self._class_prefix(labels)
        cache = self._empty_cache(x)
        # Laid out as a step's: compiled code takes other strides for another input.
        return self._cached(x, cache)[:, -1:].contiguous(), cache

    def step(self, token: PixelTokens, cache: KVCache) -> Hidden:
        """Hidden state of the next position (`batch 1 hidden`) after one more pixel token (`batch 1 pixel`)."""
        # Under autocast the projection is in the lower precision; the residual stream is not, as in `forward`.
        return self._cached(self.project_in(token).to(self.class_slots.dtype), cache)

    def _inputs(self, tokens: PixelTokens, labels: Labels) -> ResidualStream:
        return torch.cat([self._class_prefix(labels), self.project_in(tokens[:, :-1])], dim=1)

    def _class_prefix(self, labels: Labels) -> ResidualStream:
        return self.class_embedding(labels)[:, None] + self.class_slots

    def _cached(self, x: ResidualStream, cache: KVCache) -> ResidualStream:
        window = cache.window(x.shape[1])
        for layer, block in enumerate(self.blocks):
            x = block(x, self.rotary, window, layer)
        cache.length.add_(x.shape[1])
        return self.norm(x)

    def _empty_cache(self, x: ResidualStream) -> KVCache:
        positions = self.class_slots.shape[0] + self.num_tokens - 1
        # Under autocast keys and values come in the lower precision.
        kind = x.device.type
        lowered = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if lowered else x.dtype
        shape = (len(self.blocks), x.shape[0], self.num_heads, positions, x.shape[2] // self.num_heads)
        keys, values = (x.new_zeros(shape, dtype=dtype) for _ in range(2))
        return KVCache(keys=keys, values=values, length=torch.zeros((), dtype=torch.long, device=x.device))
