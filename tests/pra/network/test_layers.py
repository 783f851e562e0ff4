"""The building blocks against slow references and by hand."""

import math
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from framework.core.param_tags import NO_DECAY, tags_of
from framework.pra.network.layers import (
    Attention,
    KVCache,
    Linear,
    ModulatedBlock,
    ModulatedMLP,
    Rotary2d,
    SwiGLU,
    rms_norm,
    swiglu_width,
)

SIDE, PREFIX, HEAD_WIDTH = 4, 3, 8


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make_rotary(side: int = SIDE, prefix: int = PREFIX, head_width: int = HEAD_WIDTH) -> Rotary2d:
    rotary = Rotary2d(side=side, prefix=prefix, head_width=head_width)
    rotary.reset_parameters()
    return rotary


def everywhere(vector: Tensor, positions: int) -> Tensor:
    return vector.expand(1, 1, positions, len(vector))


def test_rotary_by_hand():
    # Head width 4: one pair turns by the row, one by the column, both at frequency 1. Cell (0, 1) is row 1, column 2.
    turned = make_rotary(side=2, prefix=0, head_width=4)(everywhere(torch.tensor([1.0, 2.0, 3.0, 4.0]), 4))[0, 0, 1]
    row, column = 1.0, 2.0
    expected = [
        1 * math.cos(row) - 3 * math.sin(row),
        2 * math.cos(column) - 4 * math.sin(column),
        1 * math.sin(row) + 3 * math.cos(row),
        2 * math.sin(column) + 4 * math.cos(column),
    ]
    torch.testing.assert_close(turned, torch.tensor(expected), atol=1e-6, rtol=0)


def test_rotary_products_depend_on_differences_of_row_and_column_alone():
    rotary = make_rotary()
    query, key = torch.randn(2, HEAD_WIDTH)
    queries = rotary(everywhere(query, PREFIX + SIDE**2))[0, 0, PREFIX:]
    keys = rotary(everywhere(key, PREFIX + SIDE**2))[0, 0, PREFIX:]
    products = defaultdict(list)
    for i in range(SIDE**2):
        for j in range(SIDE**2):
            difference = (i // SIDE - j // SIDE, i % SIDE - j % SIDE)
            products[difference].append((queries[i] @ keys[j]).item())
    assert len(products) == (2 * SIDE - 1) ** 2
    for same in products.values():
        assert max(same) - min(same) < 1e-5
    means = sorted(sum(same) / len(same) for same in products.values())
    assert min(after - before for before, after in pairwise(means)) > 1e-4


def test_rotary_leaves_class_tokens_and_keeps_lengths():
    x = torch.randn(2, 2, PREFIX + SIDE**2, HEAD_WIDTH)
    turned = make_rotary()(x)
    assert torch.equal(turned[:, :, :PREFIX], x[:, :, :PREFIX])
    assert not torch.isclose(turned[:, :, PREFIX:], x[:, :, PREFIX:]).all(-1).any()
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-6, rtol=0)


def test_rotary_at_given_positions():
    x = torch.randn(2, 2, PREFIX + SIDE**2, HEAD_WIDTH)
    rotary = make_rotary()
    assert torch.equal(rotary(x[:, :, 5:7], torch.tensor([5, 6])), rotary(x)[:, :, 5:7])


def reference_attention(attention: Attention, x: Tensor, rotary: Rotary2d) -> Tensor:
    """One query at a time, with a softmax written out."""
    batch, positions, width = x.shape
    heads = attention.num_heads
    q, k, v = (part.view(batch, positions, heads, -1).transpose(1, 2) for part in attention.qkv(x).chunk(3, dim=-1))
    q, k = rotary(attention.query_norm(q)), rotary(attention.key_norm(k))
    mixed = torch.zeros_like(q)
    for b in range(batch):
        for h in range(heads):
            for i in range(positions):
                seen = i + 1 if attention.causal else positions
                weights = torch.exp(k[b, h, :seen] @ q[b, h, i] / math.sqrt(width / heads))
                mixed[b, h, i] = weights @ v[b, h, :seen] / weights.sum()
    return attention.out(mixed.transpose(1, 2).reshape(batch, positions, width))


@pytest.mark.parametrize("causal", [True, False])
def test_attention_equals_a_slow_reference(causal: bool):
    attention = Attention(2 * HEAD_WIDTH, 2, causal=causal)
    x = torch.randn(2, 7, 2 * HEAD_WIDTH)
    torch.testing.assert_close(attention(x, make_rotary()), reference_attention(attention, x, make_rotary()))


@pytest.mark.parametrize("causal", [True, False])
def test_attention_sees_backwards_only_when_causal(causal: bool):
    attention, rotary = Attention(2 * HEAD_WIDTH, 2, causal=causal), make_rotary()
    x = torch.randn(1, 7, 2 * HEAD_WIDTH)
    changed = x.clone()
    changed[:, 4] += 1
    moved = ~torch.isclose(attention(x, rotary), attention(changed, rotary), atol=1e-12).all(-1)[0]
    assert moved.tolist() == ([False] * 4 + [True] * 3 if causal else [True] * 7)


def test_cached_attention_equals_uncached():
    attention, rotary = Attention(2 * HEAD_WIDTH, 2, causal=True), make_rotary()
    x = torch.randn(2, 7, 2 * HEAD_WIDTH)
    # What later positions will hold is not seen, whatever it is.
    keys, values = (torch.full((2, 2, 2, 7, HEAD_WIDTH), 1e3) for _ in range(2))
    cache = KVCache(keys=keys, values=values, length=torch.tensor(0))
    outputs = []
    for start, end in ((0, 3), (3, 4), (4, 5), (5, 6), (6, 7)):
        outputs.append(attention(x[:, start:end], rotary, cache.window(end - start), layer=1))
        cache.length.fill_(end)
    torch.testing.assert_close(torch.cat(outputs, dim=1), attention(x, rotary))
    assert (cache.keys[0] == 1e3).all(), "the other layer's part is untouched"


@pytest.mark.parametrize(("width", "hidden"), [(12, 32), (13, 64), (16, 64), (128, 352), (768, 2048)])
def test_swiglu_width(width: int, hidden: int):
    assert swiglu_width(width) == hidden


def test_swiglu_equals_its_formula():
    layer = SwiGLU(12)
    x = torch.randn(3, 12)
    gate, value = layer.gate_and_value.weight[:32] @ x.T, layer.gate_and_value.weight[32:] @ x.T
    expected = (layer.out.weight @ (gate * torch.sigmoid(gate) * value)).T
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("context_width", [5, None])
def test_modulated_mlp_starts_as_the_identity_in_its_blocks_and_as_zero_at_its_output(context_width: int | None):
    network = ModulatedMLP(inputs=3, outputs=4, width=8, depth=2, context_width=context_width)
    x, context = torch.randn(6, 8), None if context_width is None else torch.randn(6, context_width)
    for block in network.blocks:
        assert torch.equal(block(x, context), x)
    assert torch.equal(network(torch.randn(6, 3), context), torch.zeros(6, 4))


def test_modulated_block_by_its_formula():
    block = ModulatedBlock(8, 5)
    torch.nn.init.normal_(block.modulation.weight)
    x, context = torch.randn(6, 8), torch.randn(6, 5)
    activated = context * torch.sigmoid(context)
    shift, scale, gate = (activated @ block.modulation.weight.T + block.modulation.bias).split(8, dim=-1)
    normed = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()
    inner = F.linear(normed * (1 + scale) + shift, block.hidden.weight, block.hidden.bias)
    expected = x + gate * F.linear(inner * torch.sigmoid(inner), block.out.weight, block.out.bias)
    torch.testing.assert_close(block(x, context), expected)


def test_a_context_of_one_position_serves_many():
    network = ModulatedMLP(inputs=3, outputs=4, width=8, depth=2, context_width=5)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    x, context = torch.randn(2, 6, 3), torch.randn(2, 1, 5)
    torch.testing.assert_close(network(x, context), network(x, context.expand(2, 6, 5)))


def test_biases_and_norms_are_kept_out_of_weight_decay():
    layer = Linear(2, 3)
    assert tags_of(layer.weight) == frozenset()
    assert tags_of(layer.bias) == tags_of(rms_norm(4).weight) == {NO_DECAY}
