"""The causal transformer: who sees whom, and the cache."""

import pytest
import torch
from torch import Tensor

from framework.pra.network.transformer import CausalTransformer
from framework.testing.models import tiny_model

SETTINGS = {"image_size": 6, "depth": 2}
NUM_TOKENS = 9


@pytest.fixture(params=[1, 3], ids=["1 class token", "3 class tokens"])
def transformer(request: pytest.FixtureRequest) -> CausalTransformer:
    return tiny_model(class_tokens=request.param, **SETTINGS).transformer.double()


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(2, NUM_TOKENS, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


LABELS = torch.tensor([0, 2])


def moved(before: Tensor, after: Tensor) -> list[bool]:
    """Whether the hidden state at each position differs, in every image."""
    differs = ~torch.isclose(before, after, rtol=0, atol=1e-9).all(-1)
    assert (differs == differs[:1]).all()
    return differs[0].tolist()


def test_a_pixel_token_moves_only_later_states(transformer: CausalTransformer, tokens: Tensor):
    hidden = transformer(tokens, LABELS)
    assert hidden.shape == (2, NUM_TOKENS, 16)
    for j in range(NUM_TOKENS):
        changed = tokens.clone()
        changed[:, j] += 1
        expected = [i > j for i in range(NUM_TOKENS)]
        assert moved(hidden, transformer(changed, LABELS)) == expected


def test_a_label_moves_all_states(transformer: CausalTransformer, tokens: Tensor):
    hidden = transformer(tokens, LABELS)
    assert moved(hidden, transformer(tokens, torch.tensor([1, 0]))) == [True] * NUM_TOKENS
    null = torch.full_like(LABELS, transformer.null_class)
    assert moved(hidden, transformer(tokens, null)) == [True] * NUM_TOKENS


def test_states_know_their_place(transformer: CausalTransformer):
    same = torch.ones(1, NUM_TOKENS, 4, dtype=torch.float64)
    hidden = transformer(same, LABELS[:1])[0]
    assert torch.cdist(hidden, hidden).fill_diagonal_(1).min() > 1e-4


def test_cached_steps_equal_the_whole_pass(transformer: CausalTransformer, tokens: Tensor):
    state, cache = transformer.begin(LABELS)
    states = [state]
    for i in range(NUM_TOKENS - 1):
        states.append(transformer.step(tokens[:, i : i + 1], cache))
    assert cache.length == cache.keys.shape[-2], "the cache is as long as it needs to be"
    torch.testing.assert_close(torch.cat(states, dim=1), transformer(tokens, LABELS), rtol=1e-10, atol=1e-12)


def test_cached_steps_in_lower_precision(tokens: Tensor):
    transformer = tiny_model(**SETTINGS).transformer
    tokens = tokens.float()
    whole = transformer(tokens, LABELS)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        state, cache = transformer.begin(LABELS)
        assert cache.keys.dtype == torch.bfloat16
        states = [state]
        for i in range(NUM_TOKENS - 1):
            states.append(transformer.step(tokens[:, i : i + 1], cache))
    torch.testing.assert_close(torch.cat(states, dim=1).float(), whole, rtol=0.1, atol=0.15)


def test_the_null_class_comes_after_the_classes(transformer: CausalTransformer):
    assert transformer.null_class == 3
    assert transformer.class_embedding.num_embeddings == 4
