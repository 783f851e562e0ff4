"""A cached prefix gives the logits of the whole, and layers that run again give the gradients of those that do not."""

import pytest
import torch

from framework.gbc.language_models.prefix_cache import checkpointed_layers, frozen_prefix
from framework.testing.language_models import Family, tiny_language_model

PREFIXES = [(5, 6, 7, 8, 9), (10, 11)]
REST = [(20, 21, 22), (23, 24, 25)]


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gemma3"])
def test_logits_after_a_prefix_are_those_of_the_whole(family: Family):
    model = tiny_language_model(family)
    cache, mask = frozen_prefix(model, PREFIXES)
    assert mask.tolist() == [[1, 1, 1, 1, 1], [0, 0, 0, 1, 1]]
    ids = torch.tensor(REST)
    positions = mask.sum(dim=1, keepdim=True) + torch.arange(3)
    whole_mask = torch.cat([mask, torch.ones(2, 3, dtype=torch.long)], dim=1)
    found = model(input_ids=ids, past_key_values=cache, attention_mask=whole_mask, position_ids=positions).logits
    for row, (prefix, rest) in enumerate(zip(PREFIXES, REST, strict=True)):
        whole = model(input_ids=torch.tensor([[*prefix, *rest]])).logits[0, len(prefix) :]
        torch.testing.assert_close(found[row], whole, atol=1e-5, rtol=1e-5)
    # It keeps the prefix alone: a second pass over the rest finds the same.
    again = model(input_ids=ids, past_key_values=cache, attention_mask=whole_mask, position_ids=positions).logits
    assert torch.equal(found, again)


def test_layers_that_run_again_give_the_same_gradients():
    model = tiny_language_model()
    embeddings = model.get_input_embeddings()(torch.tensor(REST)).requires_grad_()
    (plain,) = torch.autograd.grad(model(inputs_embeds=embeddings).logits.square().sum(), embeddings)
    with checkpointed_layers(model):
        (again,) = torch.autograd.grad(model(inputs_embeds=embeddings).logits.square().sum(), embeddings)
    assert torch.equal(plain, again)
