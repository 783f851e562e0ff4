"""Tiny language models: one whose logits are known by hand, and one of each family."""

from pathlib import Path
from typing import get_args

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from framework.testing.language_models import (
    GEMMA,
    Family,
    LinearLM,
    save_tiny_model,
    tiny_language_model,
    tiny_local_model,
    tiny_tokenizer,
)


def test_the_linear_model_by_hand():
    model = LinearLM([[1.0, 0.0], [0.0, 2.0]], [[1.0, 1.0], [3.0, -1.0]])
    # Embeddings of tokens 1, 0, 1 with the first one masked: sums (0, 0), (1, 0), (1, 2).
    embedded = model.get_input_embeddings()(torch.tensor([[1, 0, 1]]))
    logits = model(inputs_embeds=embedded, attention_mask=torch.tensor([[0, 1, 1]])).logits
    assert logits.tolist() == [[[0, 0], [1, 3], [3, 1]]]


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
def test_tokenizers_give_their_texts_back(kind):
    tokenizer = tiny_tokenizer(kind=kind)
    for text in ("the cheap hotel", "Ünïcode, 10:15!"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.eos_token == "<|im_end|>"


def test_templates_of_two_families():
    messages = [{"role": "user", "content": "hello"}]
    shown = tiny_tokenizer().apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert shown == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    shown = tiny_tokenizer(template=GEMMA).apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert shown == "<bos><start_of_turn>user\nhello<end_of_turn>\n<start_of_turn>model\n"


@pytest.mark.parametrize("family", get_args(Family))
def test_a_model_of_each_family_is_frozen_and_a_function_of_its_seed(family: Family):
    model, again = tiny_language_model(family), tiny_language_model(family)
    tokens = torch.tensor([[1, 5, 9]])
    with torch.no_grad():
        logits = model(tokens).logits
        assert torch.equal(logits, again(tokens).logits)
        assert not torch.equal(logits, tiny_language_model(family, seed=1)(tokens).logits)
    assert logits.shape == (1, 3, 600)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_saved_model_is_read_by_transformers(tmp_path: Path):
    save_tiny_model(tmp_path, "qwen3", num_hidden_layers=1)
    tokenizer, model = AutoTokenizer.from_pretrained(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.config.num_hidden_layers == 1
    assert model.config.vocab_size == len(tokenizer)


def test_a_local_model_has_a_tokenizer_that_fits():
    local = tiny_local_model()
    assert local.model.config.vocab_size == len(local.tokenizer)
