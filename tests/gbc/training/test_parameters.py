"""Soft prompts and gates as parameters; their gradients against a pass over the whole loss."""

from typing import Any

import pytest
import torch

from framework.core.errors import ConfigError
from framework.gbc.execution.runner import RunOptions, run_graph
from framework.gbc.graph.spec import Agent, Graph
from framework.gbc.language_models.agent_parameters import AgentParameters
from framework.gbc.language_models.straight_through import straight_through_loss
from framework.gbc.training.parameters import (
    AgentParametersModule,
    SoftConfig,
    make_parameters,
    straight_through_gradients,
    with_gradients,
)
from framework.testing.language_models import tiny_local_model
from framework.training.strategies.placement import Placement

GRAPH = Graph(
    # An agent may be called as an attribute of modules is.
    agents=(
        Agent(name="train", prompt="A", model="m", reads=("user",), max_new_tokens=4),
        Agent(name="end", prompt="B", model="m", reads=("user", "train"), max_new_tokens=4),
        Agent(name="other", prompt="C", model="m", reads=("user",), max_new_tokens=4),
    ),
    outputs=("end", "other"),
)
HERE = Placement(device=torch.device("cpu"))
CONFIG = SoftConfig(model="m", num_tokens=2, gates=True)
TARGETS = [{"end": "north", "other": "London"}, {"end": "a mill"}, {"other": "cheap"}]


def test_names_and_first_values():
    parameters = make_parameters(GRAPH, tiny_local_model(), CONFIG, HERE, seed=0)
    agent_parameters = parameters.named(parameters())
    assert {name: tuple(value.shape) for name, value in agent_parameters.soft.items()} == dict.fromkeys(
        ("train", "end", "other"), (2, 32)
    )
    assert {name: value.item() for name, value in agent_parameters.gates.items()} == {"train to end": 1.0}
    nothing = AgentParametersModule(AgentParameters(soft={}, gates={}))
    assert [tuple(value.shape) for value in nothing()] == [(1,)]
    assert nothing.named(nothing()) == AgentParameters(soft={}, gates={})
    again = make_parameters(GRAPH, tiny_local_model(), CONFIG, HERE, seed=1)
    assert not torch.equal(again.soft["end"], parameters.soft["end"])


@pytest.mark.slow
def test_gradients_in_chunks_are_those_of_the_whole_loss():
    model = tiny_local_model()
    parameters = make_parameters(GRAPH, model, CONFIG, HERE, seed=0)
    with torch.no_grad():
        parameters.gates.mul_(0.7)
    values = parameters()
    agent_parameters = parameters.named([value.detach() for value in values])
    model.set_agent_parameters(agent_parameters)
    tasks = [{"user": word} for word in ("ant", "bee", "cat")]
    traces = list(run_graph(GRAPH, {"m": model}, tasks, options=RunOptions(on_empty="keep")))
    weights = [0.5, 0.25, 0.25]
    found = straight_through_gradients(
        model, "m", traces, TARGETS, weights, agent_parameters=agent_parameters, at_once=2
    )
    model.set_agent_parameters(parameters.named(values))
    whole = straight_through_loss(model, "m", traces, TARGETS, weights).value
    assert found.value.item() == pytest.approx(whole.item(), rel=1e-5)
    expected = torch.autograd.grad(whole, values, retain_graph=True)
    assert expected[-1].abs().max() > 0
    for ours, theirs in zip(found.gradients, expected, strict=True):
        assert (ours - theirs).abs().max() < 1e-5 * max(1.0, theirs.abs().max().item())
    with_gradients(found.value, values, found.gradients).backward()
    for parameter, gradient in zip(parameters.soft.values(), found.gradients, strict=False):
        assert torch.allclose(parameter.grad, gradient)


def test_the_gradient_of_a_gate_is_the_slope():
    model = tiny_local_model()
    parameters = make_parameters(GRAPH, model, CONFIG, HERE, seed=0)
    agent_parameters = parameters.named([value.detach() for value in parameters()])
    model.set_agent_parameters(agent_parameters)
    traces = list(run_graph(GRAPH, {"m": model}, [{"user": "ant"}], options=RunOptions(on_empty="keep")))
    found = straight_through_gradients(
        model, "m", traces, TARGETS[:1], [1.0], agent_parameters=agent_parameters, at_once=1
    )
    values = []
    for gate in (0.99, 1.01):
        model.gates = {"train to end": torch.tensor(gate)}
        values.append(straight_through_loss(model, "m", traces, TARGETS[:1]).value.item())
    assert found.gradients[-1].item() == pytest.approx((values[1] - values[0]) / 0.02, rel=0.02)


def test_a_value_and_gradients_that_are_known():
    values = (torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor(3.0, requires_grad=True))
    loss = with_gradients(torch.tensor(7.0), values, [torch.tensor([0.5, -1.0]), torch.tensor(2.0)])
    assert loss.item() == 7.0
    loss.backward()
    assert [value.grad.tolist() for value in values if value.grad is not None] == [[0.5, -1.0], 2.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_tokens": 0}, "without gates"),
        ({"model": "n"}, "not a local model"),
        ({"agents": ("z",)}, "'z', which is not an agent"),
    ],
)
def test_what_cannot_be_trained(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        SoftConfig(**{"model": "m", **options}).local_model(GRAPH, {"m": tiny_local_model()})
