"""The loss that flows: values as in the run, gradients against an independent pass, soft prompts in generation."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from framework.core.errors import ConfigError, DataError
from framework.gbc.execution.runner import RunOptions, run_graph
from framework.gbc.graph.spec import Agent, Graph
from framework.gbc.language_models import logits
from framework.gbc.language_models.local import LocalModel
from framework.gbc.language_models.lora import AdapterConfig
from framework.gbc.language_models.straight_through import make_soft_prompts, straight_through_loss
from framework.testing.language_models import tiny_local_model


def agent(name: str, *reads: str, **options: Any) -> Agent:
    return Agent(name=name, prompt=f"You are {name}.", model="m", reads=reads, max_new_tokens=5, **options)


GRAPH = Graph(agents=(agent("a", "user"), agent("b", "user"), agent("end", "a", "b")))
TASKS = [{"user": "a cheap hotel"}, {"user": "north"}]
TARGETS = ["the old mill", "London"]


def prompted(*agents: str) -> LocalModel:
    model = tiny_local_model()
    model.soft = make_soft_prompts(model, agents, num_tokens=3, seed=1)
    return model


def traces_of(model: LocalModel, tasks=TASKS):
    return list(run_graph(GRAPH, {"m": model}, tasks, options=RunOptions(on_empty="keep")))


def test_the_value_is_that_of_the_target_after_what_was_read():
    model = tiny_local_model()
    traces = traces_of(model)
    found = straight_through_loss(model, "m", traces, TARGETS)
    values = []
    for trace, target in zip(traces, TARGETS, strict=True):
        ids = list(trace.step("end").input_ids)
        goal = [*model.tokenizer(target)["input_ids"], model.tokenizer.eos_token_id]
        logits = model.model(torch.tensor([ids + goal])).logits[0, len(ids) - 1 : -1]
        values.append(torch.nn.functional.cross_entropy(logits, torch.tensor(goal)))
    assert found.value.item() == pytest.approx(torch.stack(values).mean().item(), rel=1e-5)
    assert 0.5 < found.connected_share <= 1


def test_logits_in_chunks_give_the_same_loss_and_gradients(monkeypatch: pytest.MonkeyPatch):
    model = prompted("a", "b", "end")
    model.adapters.add(["a", "end"], AdapterConfig(rank=2, targets=("q_proj", "lm_head")))
    generator = torch.Generator().manual_seed(0)
    values = {name: model.adapters.init_values(name, seed=0) for name in ("a", "end")}
    values = {name: each + 0.1 * torch.randn(each.shape, generator=generator) for name, each in values.items()}
    model.adapters.assign({name: each.requires_grad_() for name, each in values.items()})
    traces, given = traces_of(model), [*model.soft.values(), *values.values()]

    def loss_and_gradients() -> tuple[Tensor, ...]:
        value = straight_through_loss(model, "m", traces, TARGETS).value
        return value, *torch.autograd.grad(value, given)

    whole = loss_and_gradients()
    monkeypatch.setattr(logits, "CHUNK_BYTES", 1)
    for one, other in zip(loss_and_gradients(), whole, strict=True):
        assert (one - other).abs().max() < 1e-4 * other.abs().max()


def test_constant_prompts_give_the_same_loss_and_gradients_of_what_is_read_after_them():
    model = prompted("a", "b", "end")
    model.adapters.add(["a", "end"], AdapterConfig(rank=2, targets=("q_proj", "v_proj")))
    generator = torch.Generator().manual_seed(0)
    values = {name: model.adapters.init_values(name, seed=0) for name in ("a", "end")}
    values = {name: each + 0.1 * torch.randn(each.shape, generator=generator) for name, each in values.items()}
    model.adapters.assign({name: each.requires_grad_() for name, each in values.items()})
    traces, prompts = traces_of(model), [*model.soft.values()]

    def loss_and_gradients(through_prompts: bool) -> tuple[Tensor, ...]:
        value = straight_through_loss(model, "m", traces, TARGETS, through_prompts=through_prompts).value
        return value, *torch.autograd.grad(value, [*prompts, *values.values()])

    whole, constant = loss_and_gradients(True), loss_and_gradients(False)
    # Soft prompts stand after the prompts.
    for one, other in zip(constant[: 1 + len(prompts)], whole[: 1 + len(prompts)], strict=True):
        assert (one - other).abs().max() < 1e-4 * other.abs().max()
    for one, other in zip(constant[1 + len(prompts) :], whole[1 + len(prompts) :], strict=True):
        assert one.abs().max() > 0
        assert torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0) < 0.999


def test_every_token_of_several_targets_weighs_the_same():
    model = tiny_local_model()
    (trace,) = run_graph(
        replace(GRAPH, outputs=("a", "b")), {"m": model}, TASKS[:1], options=RunOptions(on_empty="keep")
    )
    targets = {"a": "the old mill by the river", "b": "no"}
    counts = [len(model.tokenizer(text)["input_ids"]) + 1 for text in targets.values()]
    assert counts[0] > counts[1]
    each = [straight_through_loss(model, "m", [trace], [{name: text}]).value.item() for name, text in targets.items()]
    expected = sum(value * count for value, count in zip(each, counts, strict=True)) / sum(counts)
    assert straight_through_loss(model, "m", [trace], [targets]).value.item() == pytest.approx(expected, rel=1e-5)


def test_gradients_reach_every_agent_through_the_messages():
    model = prompted("a", "b", "end")
    found = straight_through_loss(model, "m", traces_of(model), TARGETS)
    gradients = torch.autograd.grad(found.value, list(model.soft.values()))
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    # One trace by itself: the mean of the two.
    single = [straight_through_loss(model, "m", [t], [g]).value for t, g in zip(traces_of(model), TARGETS, strict=True)]
    assert found.value.item() == pytest.approx((single[0] + single[1]).item() / 2, rel=1e-5)
    alone = torch.autograd.grad((single[0] + single[1]) / 2, list(model.soft.values()))
    for left, right in zip(gradients, alone, strict=True):
        assert (left - right).abs().max() < 1e-4 * right.abs().max()


def test_the_gradient_of_the_last_soft_prompt_is_the_slope():
    model = prompted("end")
    traces = traces_of(model)
    (gradient,) = torch.autograd.grad(
        straight_through_loss(model, "m", traces, TARGETS).value, list(model.soft.values())
    )
    direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(0))
    values = []
    for step in (-1e-2, 1e-2):
        with torch.no_grad():
            model.soft["end"].add_(step * direction)
            values.append(straight_through_loss(model, "m", traces, TARGETS).value.item())
            model.soft["end"].sub_(step * direction)
    assert (values[1] - values[0]) / 2e-2 == pytest.approx((gradient * direction).sum().item(), rel=0.02)


def test_generation_reads_the_soft_prompt_after_the_prompt():
    model = prompted("a")
    plain, soft = traces_of(tiny_local_model()), traces_of(model)
    assert plain[0].step("b") == soft[0].step("b")
    step = soft[0].step("a")
    embeddings = model.model.get_input_embeddings()(torch.tensor([step.input_ids]))
    place = step.blocks[0].tokens[1]
    read = torch.cat([embeddings[:, :place], model.soft["a"][None], embeddings[:, place:]], dim=1)
    for token in step.output_ids:
        assert model.model(inputs_embeds=read).logits[0, -1].argmax().item() == token
        read = torch.cat([read, model.model.get_input_embeddings()(torch.tensor([[token]]))], dim=1)


def test_the_loss_reaches_every_prompt():
    model = prompted("a", "b", "end")
    traces, soft = traces_of(model), list(model.soft.values())

    def gradients(*chosen: int, weights: list[float] | None = None) -> tuple[Tensor, ...]:
        some, theirs = [traces[i] for i in chosen], [TARGETS[i] for i in chosen]
        return torch.autograd.grad(straight_through_loss(model, "m", some, theirs, weights).value, soft)

    first, second = gradients(0, 1, weights=[1.0, 0.0]), gradients(0, 1, weights=[0.0, 1.0])
    for each in (*first, *second):
        assert each.shape == (3, 32)
        assert each.abs().sum(dim=-1).min() > 0
    # One by one, and of the last agent's prompt against a pass of its own.
    for left, right in zip(second, gradients(1), strict=True):
        assert (left - right).abs().max() < 1e-4 * right.abs().max()
    step = traces[0].step("end")
    goal = [*model.tokenizer(TARGETS[0])["input_ids"], model.tokenizer.eos_token_id]
    bound = model.bind("end", step.blocks, len(step.input_ids))
    assert bound is not None
    embed = model.model.get_input_embeddings()
    read = bound.apply(embed(torch.tensor(step.input_ids)))
    logits = model.model(inputs_embeds=torch.cat([read, embed(torch.tensor(goal))])[None]).logits[0, len(read) - 1 : -1]
    value = torch.nn.functional.cross_entropy(logits, torch.tensor(goal))
    (expected,) = torch.autograd.grad(value, [model.soft["end"]])
    assert (first[2] - expected).abs().max() < 1e-4 * expected.abs().max()


def test_what_has_no_gradient():
    model = tiny_local_model()
    with pytest.raises(ConfigError, match="0 tokens"):
        make_soft_prompts(model, ["a"], num_tokens=0)
    with pytest.raises(DataError, match="no output whose gradient is known"):
        straight_through_loss(model, "other", traces_of(model), TARGETS)
