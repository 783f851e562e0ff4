"""Attention after a prefix by oneDNN's products equals torch's, with its gradients, and is taken where it pays."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from framework.core import products
from framework.core.compat.torch_compat import packs_weights
from framework.gbc.attribution.options import GradientOptions
from framework.gbc.attribution.token_gradients import token_scores
from framework.gbc.execution.teacher_forcing import TokenRow
from framework.gbc.language_models.layers import after_prefix
from framework.gbc.language_models.layers.fast import use_fast_layers
from framework.gbc.language_models.prefix_cache import prompt_states
from framework.testing.language_models import tiny_language_model

pytestmark = pytest.mark.skipif(not packs_weights(torch.float32), reason="torch without oneDNN")


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any size, on any processor."""
    monkeypatch.setattr(products, "LEAST_MULTIPLICATIONS", 1)
    monkeypatch.setattr(after_prefix, "LEAST_WEIGHTS", 1)
    monkeypatch.setattr(after_prefix, "_BLOCK", 4)
    for module in ("framework.core.products", after_prefix.__name__, "framework.gbc.language_models.layers.linear"):
        monkeypatch.setattr(f"{module}.prefers_onednn", lambda: True)


def states(*shapes: Sequence[int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator).requires_grad_() for shape in shapes]


def by_torch(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    bias = causal_lower_right(query.shape[2], key.shape[2])
    return scaled_dot_product_attention(query, key, value, attn_mask=bias, enable_gqa=True, scale=0.3)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("tokens", [1, 3, 4, 11])
def test_means_and_gradients_equal_torch_s(groups: int, tokens: int):
    query, key, value = leaves = states((2, 4, tokens, 8), (2, groups, tokens + 5, 8), (2, groups, tokens + 5, 6))
    ours, theirs = after_prefix.attend_after_prefix(query, key, value, scale=0.3), by_torch(query, key, value)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    above = torch.randn_like(ours)
    torch.testing.assert_close(
        torch.autograd.grad(ours, leaves, above), torch.autograd.grad(theirs, leaves, above), rtol=1e-5, atol=1e-5
    )


@pytest.mark.usefixtures("always")
def test_gradients_of_a_prefix_are_computed_where_something_asks_for_them(monkeypatch: pytest.MonkeyPatch):
    places: list[int] = []
    own = after_prefix.onednn_product

    def noted(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        places.append(x.shape[0])
        return own(x, weight, bias)

    monkeypatch.setattr(after_prefix, "onednn_product", noted)
    query, own_key, own_value = leaves = states((1, 2, 4, 8), (1, 1, 4, 8), (1, 1, 4, 8))
    for asked in (False, True):
        prefix = [each.requires_grad_(asked) for each in states((1, 1, 6, 8), (1, 1, 6, 8))]
        key, value = torch.cat([prefix[0], own_key], dim=-2), torch.cat([prefix[1], own_value], dim=-2)
        wanted = [*leaves, *prefix] if asked else leaves
        places.clear()
        found = torch.autograd.grad(after_prefix.attend_after_prefix(query, key, value, scale=0.3).sum(), wanted)
        # Two forward; on the way back scores, weights, queries, keys and values.
        assert places[-2:] == ([10, 10] if asked else [4, 4])
        expected = torch.autograd.grad(by_torch(query, key, value).sum(), wanted)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("always")
def test_a_second_derivative_is_an_error_rather_than_zero():
    query, key, value = states((1, 2, 4, 8), (1, 1, 6, 8), (1, 1, 6, 8))
    made = after_prefix.attend_after_prefix(query, key, value, scale=None)
    (first,) = torch.autograd.grad(made.square().sum(), query, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()


def test_where_it_pays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(after_prefix, "prefers_onednn", lambda: True)
    large = [each.detach() for each in states((1, 4, 256, 8), (1, 2, 512, 8), (1, 2, 512, 8))]
    assert after_prefix.pays(*large, dropout=0.0)
    assert not after_prefix.pays(*large, dropout=0.1)
    assert not after_prefix.pays(*(each[:, :, :64] for each in large), dropout=0.0)
    assert not after_prefix.pays(*(each.double() for each in large), dropout=0.0)
    assert not after_prefix.pays(*(each.to("meta") for each in large), dropout=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert not after_prefix.pays(*large, dropout=0.0)
    with sdpa_kernel(SDPBackend.MATH):
        assert not after_prefix.pays(*large, dropout=0.0)
    monkeypatch.setattr(after_prefix, "prefers_onednn", lambda: False)
    assert not after_prefix.pays(*large, dropout=0.0)


@pytest.mark.parametrize("together", [1, 3])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_scores_of_input_tokens_are_those_of_torch_s_layers(
    request: pytest.FixtureRequest, together: int, checkpointing: bool
):
    rows = [
        TokenRow(input_ids=(5, 6, 7, *range(20, 29)), prefix=3, output_ids=(30, 31, 32, 33)),
        TokenRow(input_ids=(5, 6, 7, *range(40, 46)), prefix=3, output_ids=(34, 35, 36)),
    ]
    options = GradientOptions(scalar="finegrained", gradients_at_once=together, checkpointing=checkpointing)
    plain = tiny_language_model().eval().requires_grad_(False)
    expected = token_scores(plain, rows, options)
    request.getfixturevalue("always")
    use_fast_layers(plain)
    prompt_states(plain).clear()
    for ours, theirs in zip(token_scores(plain, rows, options), expected, strict=True):
        torch.testing.assert_close(ours.l1, theirs.l1, rtol=1e-5, atol=1e-5 * float(theirs.l1.max()))
        torch.testing.assert_close(ours.log_probs, theirs.log_probs, rtol=1e-5, atol=1e-5)
