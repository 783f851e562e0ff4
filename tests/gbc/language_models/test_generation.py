"""Padding by hand, sampling by its frequencies, and the tokens that end an answer."""

import pytest
import torch
from transformers import GenerationConfig

from framework.gbc.language_models import generation
from framework.gbc.language_models.generation import (
    GumbelNoise,
    StopTexts,
    end_tokens,
    pad_left,
    plain_generation_config,
)
from framework.testing.language_models import tiny_language_model, tiny_tokenizer


def test_padding_by_hand():
    ids, mask = pad_left([[5], [6, 7, 8]], 9, torch.device("cpu"))
    assert ids.tolist() == [[9, 9, 5], [6, 7, 8]]
    assert mask.tolist() == [[0, 0, 1], [1, 1, 1]]


def test_the_largest_noisy_logit_is_a_sample_of_the_softmax():
    logits, count, temperature = torch.tensor([0.0, 1.0, 2.0]), 4000, 0.5
    noise = GumbelNoise(list(range(count)), temperature)
    picks = noise(torch.zeros(count, 1, dtype=torch.long), logits.expand(count, 3)).argmax(dim=1)
    shares = torch.bincount(picks, minlength=3) / count
    torch.testing.assert_close(shares, (logits / temperature).softmax(dim=0), atol=0.025, rtol=0)


def test_a_row_depends_on_its_own_seed_alone():
    logits = torch.zeros(2, 5)
    ids = torch.zeros(2, 1, dtype=torch.long)
    both, alone = GumbelNoise([3, 4], 1.0), GumbelNoise([4], 1.0)
    for _ in range(20):
        pair = both(ids, logits)
        assert torch.equal(pair[1], alone(ids[:1], logits[:1])[0])
        assert not torch.equal(pair[0], pair[1])


def test_a_token_s_noise_is_the_same_however_many_are_drawn_ahead(monkeypatch: pytest.MonkeyPatch):
    def draws(count: int) -> torch.Tensor:
        monkeypatch.setattr(generation, "_AHEAD", count)
        noise, logits = GumbelNoise([3, -4], 0.5), torch.zeros(2, 7)
        return torch.stack([noise(torch.zeros(2, 1, dtype=torch.long), logits) for _ in range(5)])

    found = draws(1)
    assert torch.equal(found, draws(3))
    assert len(found.unique()) > 60


def test_the_noise_is_this_one():
    # Another number here is another answer to every seed: say so to users.
    noise = GumbelNoise([0, 5], 1.0)(torch.zeros(2, 1, dtype=torch.long), torch.zeros(2, 3))
    torch.testing.assert_close(
        noise, torch.tensor([[0.67484, -0.75359, -0.28572], [-0.37319, 2.62754, -1.41557]]), atol=1e-4, rtol=1e-4
    )


def test_the_tokens_that_end_an_answer():
    model, tokenizer = tiny_language_model(), tiny_tokenizer()
    model.generation_config = GenerationConfig(eos_token_id=[7, 3])
    assert end_tokens(model, tokenizer) == [7, 3]
    model.generation_config = GenerationConfig(eos_token_id=9)
    assert end_tokens(model, tokenizer) == [9, tokenizer.eos_token_id]


def test_the_sampling_of_the_models_folder_is_put_aside():
    model = tiny_language_model()
    model.generation_config = kept = GenerationConfig(do_sample=True, top_k=2)
    with plain_generation_config(model):
        assert not model.generation_config.do_sample
    assert model.generation_config is kept


def test_rows_end_at_their_own_texts():
    words = {1: "a", 2: "b", 3: "c"}
    stop = StopTexts([["b"], ["ca"], []], lambda ids: "".join(words[token] for token in ids), num_read=1)
    ids = torch.tensor([[2, 1], [3, 1], [2, 2]])
    assert stop(ids, torch.zeros(3, 3)).tolist() == [False, False, False]
    ids = torch.tensor([[2, 1, 2], [3, 3, 1], [2, 2, 2]])
    assert stop(ids, torch.zeros(3, 3)).tolist() == [True, True, False]
