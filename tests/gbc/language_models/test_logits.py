"""Logits at chosen positions."""

import pytest
import torch

from framework.core.errors import ConfigError
from framework.gbc.language_models.logits import consecutive_positions, cut_logits_at, logits_at
from framework.testing.language_models import Family, tiny_language_model


def test_consecutive_positions():
    assert consecutive_positions([3, 0], [2, 4]).tolist() == [[3, 4, 4, 4], [0, 1, 2, 3]]


@pytest.mark.parametrize("family", ["qwen3", "gemma2"])
def test_logits_are_those_of_the_whole(family):
    model = tiny_language_model(family)
    ids = torch.arange(2 * 7).view(2, 7) + 4
    chosen = consecutive_positions([1, 4], [3, 2])
    whole = model(input_ids=ids).logits
    found = logits_at(model, chosen, input_ids=ids)
    torch.testing.assert_close(found, torch.stack([whole[0, [1, 2, 3]], whole[1, [4, 5, 5]]]))
    assert model(input_ids=ids).logits.shape == whole.shape


@pytest.mark.parametrize("family", ["qwen3", "gemma2"])
def test_a_gradient_goes_on_where_the_graph_was_cut(family: Family):
    # Gemma 2 caps its logits after the head.
    model = tiny_language_model(family)
    embeddings = model.get_input_embeddings()(torch.arange(14).view(2, 7) + 4).detach().requires_grad_()
    chosen = consecutive_positions([1, 4], [3, 2])
    whole = logits_at(model, chosen, inputs_embeds=embeddings)
    (expected,) = torch.autograd.grad(whole.square().sum(), embeddings)
    cut = cut_logits_at(model, chosen, inputs_embeds=embeddings)
    torch.testing.assert_close(cut.logits, whole)
    (at_head,) = torch.autograd.grad(cut.logits.square().sum(), cut.read)
    assert at_head.shape == cut.hidden.shape == (2, 3, 32)
    (found,) = torch.autograd.grad(cut.hidden, embeddings, at_head)
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        assert not cut_logits_at(model, chosen, inputs_embeds=embeddings).logits.requires_grad


def test_the_head_is_whole_again_after_an_error():
    model = tiny_language_model("qwen3")
    ids = torch.arange(6).view(1, 6) + 4
    with pytest.raises(RuntimeError):
        logits_at(model, torch.tensor([[6]]), input_ids=ids)
    assert model(input_ids=ids).logits.shape[1] == 6


def test_the_head_reads_no_other_consecutive_positions():
    model, widths = tiny_language_model("qwen3"), []
    head = model.get_output_embeddings()
    assert head is not None
    head.register_forward_hook(lambda module, inputs, output: widths.append(output.shape[1]))
    logits_at(model, consecutive_positions([1, 6], [1, 1]), input_ids=torch.arange(16).view(2, 8) + 4)
    assert widths == [1]


def test_a_model_without_a_head(monkeypatch):
    model = tiny_language_model("qwen3")
    monkeypatch.setattr(model, "get_output_embeddings", lambda: None)
    with pytest.raises(ConfigError, match="gives no logits"):
        logits_at(model, consecutive_positions([0], [1]), input_ids=torch.tensor([[5, 6]]))
