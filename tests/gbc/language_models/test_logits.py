"""Logits at chosen positions, in chunks."""

from typing import get_args

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from framework.core.errors import ConfigError
from framework.gbc.language_models import logits
from framework.gbc.language_models.logits import (
    LogitChunk,
    consecutive_positions,
    hidden_at,
    map_logits,
    over_chunks,
    positions_at_once,
)
from framework.gbc.language_models.lora import AdapterConfig, active_adapters
from framework.gbc.language_models.transformers_compat import logits_of
from framework.testing.language_models import Family, Hybrid, tiny_hybrid_model, tiny_language_model, tiny_local_model


def test_consecutive_positions():
    assert consecutive_positions([3, 0], [2, 4]).tolist() == [[3, 4, 4, 4], [0, 1, 2, 3]]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One position of two rows at a time."""
    monkeypatch.setattr(logits, "CHUNK_BYTES", 1)


def read_of(model: PreTrainedModel) -> Tensor:
    return model.get_input_embeddings()(torch.arange(14).view(2, 7) + 4).detach().requires_grad_()


CHOSEN = consecutive_positions([1, 4], [3, 2])


def chosen_logits(model: PreTrainedModel, read: Tensor) -> Tensor:
    whole = model(inputs_embeds=read).logits
    return torch.stack([whole[0, [1, 2, 3]], whole[1, [4, 5, 5]]])


@pytest.mark.parametrize("family", [*get_args(Family), *get_args(Hybrid)])
def test_logits_of_hidden_states_are_those_of_the_whole(family: Family | Hybrid):
    # Gemma 2 caps its logits after the head, Falcon-H1 multiplies them.
    model = tiny_hybrid_model(family) if family in get_args(Hybrid) else tiny_language_model(family)
    with torch.no_grad():
        read = read_of(model)
        hidden = hidden_at(model, CHOSEN, inputs_embeds=read)
        torch.testing.assert_close(logits_of(model, hidden), chosen_logits(model, read))
        assert model(inputs_embeds=read).logits.shape[:2] == (2, 7)


@pytest.mark.parametrize("family", ["qwen3", "gemma2"])
@pytest.mark.parametrize("chunks", [1, 3])
def test_mapped_chunks_give_what_all_logits_give(family: Family, chunks: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logits, "CHUNK_BYTES", 1 if chunks == 3 else logits.CHUNK_BYTES)
    model = tiny_language_model(family).double()
    read, seen = read_of(model), []
    expected = chosen_logits(model, read)
    (gradient,) = torch.autograd.grad(expected.square().sum(), read)
    hidden = hidden_at(model, CHOSEN, inputs_embeds=read)

    def differentiate(chunk: LogitChunk) -> tuple[Tensor, Tensor]:
        seen.append(chunk.logits.shape[1])
        return torch.autograd.grad(chunk.logits.square().sum(), chunk.read)[0], chunk.logits.detach()

    at_head, found = map_logits(model, hidden, differentiate)
    assert seen == ([1, 1, 1] if chunks == 3 else [3])
    torch.testing.assert_close(found, expected.detach())
    torch.testing.assert_close(torch.autograd.grad(hidden, read, at_head)[0], gradient)
    with torch.no_grad():
        (no_graph,) = map_logits(
            model, hidden, lambda chunk: (torch.full(chunk.logits.shape[:2], chunk.logits.requires_grad),)
        )
    assert not no_graph.any()


def test_chunks_that_are_computed_again_have_the_same_gradients(small_chunks: None):
    model = tiny_language_model("gemma2").double()
    read = read_of(model)
    expected = chosen_logits(model, read).logsumexp(dim=2)
    hidden = hidden_at(model, CHOSEN, inputs_embeds=read)
    found = over_chunks(model, hidden, lambda positions, each: each.logsumexp(dim=2))
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(expected.square().sum(), read)
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), read)[0], gradient)


def test_an_adapter_of_the_head_gets_its_gradient_in_chunks(small_chunks: None):
    model = tiny_local_model()
    model.adapters.add(["a", "b"], AdapterConfig(rank=2, targets=("lm_head",)))
    model.model.double()
    values = {
        name: torch.randn_like(model.adapters.init_values(name, seed=0).double()).requires_grad_() for name in "ab"
    }
    model.adapters.assign(values)
    rows = [model.adapters.of("b"), model.adapters.of("a")]
    hidden = torch.randn(2, 3, 32, dtype=torch.float64, requires_grad=True)
    given = [hidden, values["a"], values["b"]]
    with active_adapters(rows):
        expected = torch.autograd.grad(logits_of(model.model, hidden).square().sum(), given)
    found = over_chunks(model.model, hidden, lambda positions, each: each.square().sum(dim=2), adapters=rows)
    # Rows are named where the logits are computed again, too.
    for one, other in zip(torch.autograd.grad(found.sum(), given), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_model_is_as_before_after_an_error():
    model = tiny_language_model("qwen3")
    ids = torch.arange(6).view(1, 6) + 4
    with pytest.raises(RuntimeError):
        hidden_at(model, torch.tensor([[6]]), input_ids=ids)
    with pytest.raises(RuntimeError):
        logits_of(model, torch.zeros(1, 2, 31))
    assert "forward" not in model.get_decoder().__dict__
    assert model(input_ids=ids).logits.shape[1] == 6


def test_the_head_reads_no_positions_with_the_layers():
    model, widths = tiny_language_model("qwen3"), []
    head = model.get_output_embeddings()
    assert head is not None
    head.register_forward_hook(lambda module, inputs, output: widths.append(output.shape[1]))
    hidden = hidden_at(model, consecutive_positions([1, 6], [1, 1]), input_ids=torch.arange(16).view(2, 8) + 4)
    assert widths == [0]
    assert hidden.shape == (2, 1, 32)


def test_chunks_are_bounded_by_their_bytes():
    # 64 MiB are 16,777,216 values in float32.
    assert positions_at_once(1, 49152) == 341
    assert positions_at_once(32, 49152) == 10
    assert positions_at_once(1000, 151936) == 1


def test_a_model_without_a_head(monkeypatch):
    model = tiny_language_model("qwen3")
    monkeypatch.setattr(model, "get_output_embeddings", lambda: None)
    with pytest.raises(ConfigError, match="gives no logits"):
        hidden_at(model, consecutive_positions([0], [1]), input_ids=torch.tensor([[5, 6]]))
