"""A cached prefix gives the logits of the whole, and layers that run again give the gradients of those that do not."""

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from framework.gbc.language_models import prefix_cache
from framework.gbc.language_models.lora import AdapterConfig
from framework.gbc.language_models.prefix_cache import checkpointed_layers, frozen_prefix, prompt_states
from framework.testing.language_models import Family, tiny_language_model, tiny_local_model

PREFIXES = [(5, 6, 7, 8, 9), (10, 11)]
REST = [(20, 21, 22), (23, 24, 25)]


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gemma3"])
def test_logits_after_a_prefix_are_those_of_the_whole(family: Family):
    model = tiny_language_model(family)
    cache, lengths = frozen_prefix(model, PREFIXES)
    assert lengths == [5, 2]
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 0, 1, 1]])
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


def states_of(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    return [(layer.keys.clone(), layer.values.clone()) for layer in cache.layers]


def test_a_prompt_is_read_once_by_itself():
    model, seen = tiny_language_model(), []
    model.register_forward_hook(
        lambda module, args, kwargs, out: seen.append(kwargs["inputs_embeds"].shape), with_kwargs=True
    )
    first = states_of(frozen_prefix(model, [*PREFIXES, PREFIXES[0]])[0])
    assert seen == [(1, 5, 32), (1, 2, 32)]
    cache, lengths = frozen_prefix(model, [PREFIXES[1], PREFIXES[0]])
    assert len(seen) == 2 == prompt_states(model).num_read
    assert lengths == [2, 5]
    for (keys, values), (again, others) in zip(first, states_of(cache), strict=True):
        assert torch.equal(keys[1, :, 3:], again[0, :, 3:])
        assert torch.equal(values[0], others[1])


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.load_state_dict({k: 2 * v for k, v in model.state_dict().items()}),
        lambda model: torch.nn.init.normal_(model.model.layers[0].mlp.up_proj.weight),
        lambda model: model.model.layers[0].self_attn.q_proj.weight.data.add_(1),
        lambda model: model.double(),
    ],
    ids=["loaded", "in place", "data", "type"],
)
def test_other_weights_read_the_prompt_again(change: Callable[[PreTrainedModel], object]):
    model = tiny_language_model()
    before = states_of(frozen_prefix(model, PREFIXES)[0])
    frozen_prefix(model, PREFIXES)
    assert prompt_states(model).num_read == 2
    change(model)
    after = states_of(frozen_prefix(model, PREFIXES)[0])
    assert prompt_states(model).num_read == 4
    assert not torch.equal(before[1][0].double(), after[1][0].double())
    prompt_states(model).clear()
    for (keys, _), (fresh, _) in zip(after, states_of(frozen_prefix(model, PREFIXES)[0]), strict=True):
        assert torch.equal(keys, fresh)


def test_agents_parameters_are_part_of_the_key():
    local = tiny_local_model()
    prefix = [(5, 6, 7)]

    def read(agent: str) -> tuple[int, Tensor]:
        bound = local.bind(agent, [], 3)
        keys = states_of(frozen_prefix(local.model, prefix, bound=[bound])[0])[1][0]
        return prompt_states(local.model).num_read, keys

    assert read("a")[0] == read("b")[0] == 1
    local.adapters.add(["a"], AdapterConfig(rank=2))
    value = torch.randn_like(local.adapters.init_values("a", seed=0))
    local.adapters.assign({"a": value})
    assert read("a")[0] == 2
    # Equal values in another place are the same adapter; a trained one is another.
    local.adapters.assign({"a": value.clone()})
    num_read, before = read("a")
    assert num_read == 2
    with torch.no_grad():
        local.adapters.values["a"].add_(1)
    num_read, after = read("a")
    assert num_read == 3
    assert not torch.equal(before, after)
    local.soft = {"b": torch.randn(1, 32)}
    num_read, with_prompt = read("b")
    assert num_read == 4
    assert with_prompt.shape[2] == 4
    local.soft["b"].mul_(2)
    assert read("b")[0] == 5


def test_the_oldest_prompts_give_way():
    model = tiny_language_model()
    kept = prompt_states(model)
    frozen_prefix(model, PREFIXES)
    of_token = kept.num_bytes // 7
    assert kept.num_bytes == 7 * of_token > 0
    kept.max_bytes = 9 * of_token
    # The first is used, so that the second, of 2 tokens, goes; then both make place for a larger one.
    frozen_prefix(model, [PREFIXES[0], (1, 2, 3)])
    assert kept.num_bytes == 8 * of_token
    frozen_prefix(model, [PREFIXES[0]])
    assert kept.num_read == 3
    frozen_prefix(model, [tuple(range(4, 13))])
    assert kept.num_bytes == 9 * of_token
    # What is larger than the bound is read and not kept.
    frozen_prefix(model, [tuple(range(4, 14))])
    assert kept.num_bytes == 9 * of_token
    kept.max_bytes = 0
    frozen_prefix(model, [tuple(range(4, 13))])
    assert kept.num_bytes == 0
    assert kept.num_read == 6


def test_little_memory_keeps_little(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prefix_cache, "free_bytes", lambda device: 10)
    model = tiny_language_model()
    frozen_prefix(model, PREFIXES)
    assert prompt_states(model).num_bytes == 0


def test_what_is_kept_goes_with_the_model():
    model = tiny_language_model()
    frozen_prefix(model, PREFIXES)
    states = weakref.ref(prompt_states(model))
    del model
    gc.collect()
    assert states() is None


def test_layers_that_run_again_give_the_same_gradients():
    model = tiny_language_model()
    embeddings = model.get_input_embeddings()(torch.tensor(REST)).requires_grad_()
    (plain,) = torch.autograd.grad(model(inputs_embeds=embeddings).logits.square().sum(), embeddings)
    with checkpointed_layers(model):
        (again,) = torch.autograd.grad(model(inputs_embeds=embeddings).logits.square().sum(), embeddings)
    assert torch.equal(plain, again)
