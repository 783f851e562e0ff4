"""Building blocks: layers with tags and initial weights, 2-D rotary positions, attention, modulated MLP blocks."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from framework.core.param_tags import NO_DECAY, tag, tag_all
from framework.core.products import linear
from framework.pra.shapes import AttentionHeads, Positions, ResidualStream

ROTARY_BASE = 100.0
"""Ours: the longest wavelength is about the widest raster (32 tokens) times 2 pi."""
EMBEDDING_STD = 0.02


class Linear(nn.Linear):
    """A linear layer; its bias is kept out of weight decay.

    Args:
        inputs: width of the input.
        outputs: width of the output.
        bias: whether there is one; it starts at zero.
        gain: factor on Xavier's uniform initial weights; 0 starts the layer at zero.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True, gain: float = 1.0) -> None:
        self.gain = gain
        super().__init__(inputs, outputs, bias=bias)  # pyright: ignore[reportUnknownMemberType]
        if bias:
            tag(self.bias, NO_DECAY)

    def reset_parameters(self) -> None:
        """Fill the weights by Glorot and Bengio's (2010) uniform distribution, the bias with zeros."""
        nn.init.xavier_uniform_(self.weight, gain=self.gain)
        if self.bias is not None:  # pyright: ignore[reportUnnecessaryComparison] - torch says that there is one
            nn.init.zeros_(self.bias)

    @property
    def dtype(self) -> torch.dtype:
        """Of the input that it takes."""
        return self.weight.dtype

    def forward(self, input: Float[Tensor, "*axes inputs"]) -> Float[Tensor, "*axes outputs"]:
        # Sampling has layers of its own, and one row's products do not depend on how many rows there are.
        product = linear if torch.is_grad_enabled() else F.linear
        return product(input, self.weight, self.bias)


class Embedding(nn.Embedding):
    """An embedding that is kept out of weight decay; normal initial values."""

    def __init__(self, entries: int, width: int) -> None:
        super().__init__(entries, width)  # pyright: ignore[reportUnknownMemberType]
        tag_all(self, NO_DECAY)

    def reset_parameters(self) -> None:
        """Fill the vectors with normal values of standard deviation `EMBEDDING_STD`."""
        nn.init.normal_(self.weight, std=EMBEDDING_STD)


def rms_norm(width: int) -> nn.RMSNorm:
    """RMSNorm with a learned scale that is kept out of weight decay."""
    return tag_all(nn.RMSNorm(width, eps=1e-6), NO_DECAY)


def swiglu_width(width: int) -> int:
    """Hidden width of a SwiGLU layer: 8/3 of the model's width (Shazeer 2020), up to the next multiple of 32 (ours)."""
    return -(-8 * width // 3 // 32) * 32


class Rotary2d(nn.Module):
    """Rotary positions (Su et al. 2021) on a grid: half of a head's pairs turn with the row, half with the column.

    Positions without a place on the grid (class tokens) are given as row = column = 0; the grid starts at 1 (ours).

    Args:
        side: rows and columns of the grid.
        prefix: positions before the grid.
        head_width: values of an attention head, a multiple of 4.
    """

    cosine: Float[Tensor, "position pair"]
    sine: Float[Tensor, "position pair"]

    def __init__(self, *, side: int, prefix: int, head_width: int) -> None:
        super().__init__()
        self.side, self.prefix, self.head_width = side, prefix, head_width
        shape = (prefix + side**2, head_width // 2)
        self.register_buffer("cosine", torch.empty(shape), persistent=False)
        self.register_buffer("sine", torch.empty(shape), persistent=False)

    def reset_parameters(self) -> None:
        """Fill the tables; they are not saved but made anew."""
        device = self.cosine.device
        pairs = self.head_width // 4
        frequencies = ROTARY_BASE ** -(torch.arange(pairs, device=device) / pairs)
        place = torch.arange(1, self.side + 1, device=device, dtype=torch.float32)
        rows, columns = torch.meshgrid(place, place, indexing="ij")
        grid = torch.cat([rows.flatten()[:, None] * frequencies, columns.flatten()[:, None] * frequencies], dim=1)
        angles = torch.cat([grid.new_zeros(self.prefix, grid.shape[1]), grid])
        self.cosine.copy_(angles.cos())
        self.sine.copy_(angles.sin())

    def forward(self, x: AttentionHeads, positions: Positions | None = None) -> AttentionHeads:
        """Turn queries or keys at these positions, or at the first ones."""
        tables = self.cosine, self.sine
        if positions is None:
            cosine, sine = (table[: x.shape[-2]].to(x.dtype) for table in tables)
        else:
            cosine, sine = (table.index_select(0, positions).to(x.dtype) for table in tables)
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


@dataclass(frozen=True, kw_only=True)
class KVCache:
    """Keys and values of the positions seen so far, for every layer; it has its last size from the start.

    Its length is a tensor, so that a compiled or captured step is the same for every position (ours, after the static
    caches of language models' generation).

    Attributes:
        keys: zeros where nothing has been written.
        values: as the keys.
        length: positions that are filled.
    """

    keys: Float[Tensor, "layer batch head position value"]
    values: Float[Tensor, "layer batch head position value"]
    length: Int[Tensor, ""]

    def window(self, count: int) -> "CacheWindow":
        """Where the next so many positions are written, and what they see."""
        positions = self.length + torch.arange(count, device=self.length.device)
        visible = torch.arange(self.keys.shape[-2], device=positions.device) <= positions[:, None]
        return CacheWindow(cache=self, positions=positions, visible=visible)


@dataclass(frozen=True, kw_only=True)
class CacheWindow:
    """The positions of one step in a cache.

    Attributes:
        cache: is written to.
        positions: of the step.
        visible: which positions of the cache each of them sees: itself and all before.
    """

    cache: KVCache
    positions: Positions
    visible: Bool[Tensor, "new position"]

    def extend(
        self,
        layer: int,
        keys: Float[Tensor, "batch head new value"],
        values: Float[Tensor, "batch head new value"],
    ) -> tuple[AttentionHeads, AttentionHeads]:
        """Write one layer's keys and values, and return those of all positions, empty ones included.

        Args:
            layer: its number.
            keys: of these positions.
            values: of these positions.
        """
        all_keys, all_values = self.cache.keys[layer], self.cache.values[layer]
        all_keys.index_copy_(2, self.positions, keys)
        all_values.index_copy_(2, self.positions, values)
        return all_keys, all_values


class Attention(nn.Module):
    """Multi-head attention with normalised queries and keys, rotary positions and an optional cache.

    softmax(q k^T / sqrt(value)) v (Vaswani et al. 2017, section 3.2) with RMSNorm on q and k (Dehghani et al. 2023).

    Args:
        width: of the residual stream.
        num_heads: attention heads; `width / num_heads` is a multiple of 4.
        causal: positions see only earlier ones and themselves.
        gain: factor on the initial weights of the projection into the residual stream.
    """

    def __init__(self, width: int, num_heads: int, *, causal: bool, gain: float = 1.0) -> None:
        super().__init__()
        self.num_heads, self.causal = num_heads, causal
        self.qkv = Linear(width, 3 * width, bias=False)
        self.query_norm = rms_norm(width // num_heads)
        self.key_norm = rms_norm(width // num_heads)
        self.out = Linear(width, width, bias=False, gain=gain)

    def forward(
        self, x: ResidualStream, rotary: Rotary2d, window: CacheWindow | None = None, layer: int = 0
    ) -> ResidualStream:
        """Mix positions.

        Args:
            x: the residual stream after its norm.
            rotary: turns queries and keys.
            window: where in a cache of earlier positions `x` goes on; None where it is the whole sequence.
            layer: number of this layer in the cache.
        """
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.num_heads)
        positions = window.positions if window else None
        # Under autocast q and k come in the lower precision; a norm in mixed ones is slow, and torch warns about it.
        precise = self.query_norm.weight.dtype
        q = rotary(self.query_norm(q.to(precise)), positions).to(v.dtype)
        k = rotary(self.key_norm(k.to(precise)), positions).to(v.dtype)
        if window:
            k, v = window.extend(layer, k, v)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=window.visible)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(rearrange(mixed, "b h n d -> b n (h d)"))


class SwiGLU(nn.Module):
    """Gated feed-forward layer (Shazeer 2020)."""

    def __init__(self, width: int, *, gain: float = 1.0) -> None:
        super().__init__()
        hidden = swiglu_width(width)
        self.gate_and_value = Linear(width, 2 * hidden, bias=False)
        self.out = Linear(hidden, width, bias=False, gain=gain)

    def forward(self, x: Float[Tensor, "*axes width"]) -> Float[Tensor, "*axes width"]:
        gate, value = self.gate_and_value(x).chunk(2, dim=-1)
        return self.out(F.silu(gate) * value)


class TransformerBlock(nn.Module):
    """Pre-norm attention and feed-forward layer.

    Args:
        width: of the residual stream.
        num_heads: attention heads.
        causal: positions see only earlier ones and themselves.
        gain: factor on the initial weights of the two projections into the residual stream.
    """

    def __init__(self, width: int, num_heads: int, *, causal: bool, gain: float = 1.0) -> None:
        super().__init__()
        self.attention_norm = rms_norm(width)
        self.attention = Attention(width, num_heads, causal=causal, gain=gain)
        self.feed_forward_norm = rms_norm(width)
        self.feed_forward = SwiGLU(width, gain=gain)

    def forward(
        self, x: ResidualStream, rotary: Rotary2d, window: CacheWindow | None = None, layer: int = 0
    ) -> ResidualStream:
        """The residual stream after this layer.

        Args:
            x: the residual stream.
            rotary: turns queries and keys.
            window: where in a cache of earlier positions `x` goes on; None where it is the whole sequence.
            layer: number of this layer in the cache.
        """
        x = x + self.attention(self.attention_norm(x), rotary, window, layer)
        return x + self.feed_forward(self.feed_forward_norm(x))


class ResidualBlock(nn.Module):
    """Pre-norm residual MLP block: x + gate * MLP(norm(x) * (1 + scale) + shift).

    Without shift, scale and gate it is a plain residual block, x + MLP(norm(x)).

    Args:
        width: of the residual stream.
        modulated: whether `forward` gets shift, scale and gate. Plain, the block starts as the identity; modulated,
            it does so where the gate starts at zero (adaLN-zero, Peebles 2023).
        modulation: a layer that makes them of what `forward` gets instead.
    """

    def __init__(self, width: int, *, modulated: bool, modulation: Linear | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = modulation
        self.hidden = Linear(width, width)
        self.out = Linear(width, width, gain=1.0 if modulated else 0.0)

    def forward(
        self, x: Float[Tensor, "*axes width"], context: Float[Tensor, "*context_axes context"] | None
    ) -> Float[Tensor, "*axes width"]:
        """The residual stream after this block.

        Args:
            x: the residual stream.
            context: `[shift | scale | gate]`, each of `width` values; None for none.
        """
        if context is None:
            return x + self.out(F.silu(self.hidden(self.norm(x))))
        shift, scale, gate = context.chunk(3, dim=-1)
        return x + gate * self.out(F.silu(self.hidden(self.norm(x) * (1 + scale) + shift)))


class ModulatedBlock(ResidualBlock):
    """Residual MLP block that makes its own modulation of a context: linear in SiLU(context) (Peebles 2023).

    Without a context (`context_width` None) it is a plain residual block.
    """

    def __init__(self, width: int, context_width: int | None) -> None:
        own = Linear(context_width, 3 * width, gain=0.0) if context_width else None
        super().__init__(width, modulated=own is not None, modulation=own)

    def forward(
        self, x: Float[Tensor, "*axes width"], context: Float[Tensor, "*context_axes context"] | None
    ) -> Float[Tensor, "*axes width"]:
        """The residual stream after this block, in a context, if it has one."""
        if self.modulation is None or context is None:
            return super().forward(x, None)
        return super().forward(x, self.modulation(F.silu(context)))


class ModulatedMLP(nn.Module):
    """A stack of `ModulatedBlock`s between two projections; used by the diffusion head and the pixel decoder.

    It starts as zero: every block is the identity and the last projection zero.

    Args:
        inputs: values of the input.
        outputs: values of the output.
        width: of the residual stream.
        depth: blocks.
        context_width: values of the context; None for a network without one.
    """

    def __init__(self, *, inputs: int, outputs: int, width: int, depth: int, context_width: int | None) -> None:
        super().__init__()
        self.project_in = Linear(inputs, width)
        self.blocks = nn.ModuleList(ModulatedBlock(width, context_width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = Linear(context_width, 2 * width, gain=0.0) if context_width else None
        self.project_out = Linear(width, outputs, gain=0.0)

    def forward(
        self, x: Float[Tensor, "*axes inputs"], context: Float[Tensor, "*context_axes context"] | None
    ) -> Float[Tensor, "*axes outputs"]:
        x = self.project_in(x)
        for block in self.blocks:
            x = block(x, context)
        x = self.norm(x)
        if self.modulation is not None and context is not None:
            shift, scale = self.modulation(F.silu(context)).chunk(2, dim=-1)
            x = x * (1 + scale) + shift
        return self.project_out(x)
