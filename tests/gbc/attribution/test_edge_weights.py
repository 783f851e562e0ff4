"""Connection weights of a step: reductions by hand, which variants there are."""

from typing import Any

import pytest
import torch

from framework.gbc.attribution.edge_weights import compute_connections
from framework.gbc.attribution.options import ConnectionOptions
from framework.gbc.attribution.token_gradients import TokenScores
from framework.gbc.execution.runner import RunOptions, run_graph
from framework.gbc.graph.spec import Agent, Graph, Tool
from framework.gbc.language_models.straight_through import make_soft_prompts
from framework.testing.language_models import tiny_local_model

GRAPH = Graph(
    agents=(
        Agent(name="a", prompt="Be brief.", model="m", reads=("user",), max_new_tokens=4),
        Agent(name="b", prompt="Be brief.", model="m", reads=("user", "a"), max_new_tokens=4),
    )
)


@pytest.fixture(scope="module")
def model():
    return tiny_local_model()


@pytest.fixture(scope="module")
def trace(model):
    return next(run_graph(GRAPH, {"m": model}, [{"user": "a cheap hotel"}], options=RunOptions(on_empty="keep")))


@pytest.mark.parametrize("reduction", ["mean", "max", "sum"])
def test_reductions_by_hand(model, trace, reduction: Any):
    step = trace.step("b")
    places = {block.source: block.tokens for block in step.messages}

    def scorer(language_model, rows, options):
        found = []
        for row in rows:
            scores = torch.zeros(1, len(row.input_ids) - row.prefix)
            if row.input_ids == step.input_ids:
                user, other = places["user"][0] - row.prefix, places["a"][0] - row.prefix
                count = places["user"][1] - places["user"][0]
                scores[0, user : user + count] = 2.0
                scores[0, user], scores[0, user + 1] = 3.0, -1.0 if count > 1 else 3.0
                scores[0, other : other + places["a"][1] - places["a"][0]] = 5.0
            found.append(
                TokenScores(
                    l1=scores, squared_l2=scores, gradient_input=scores, log_probs=torch.zeros(1), log_scale=0.0
                )
            )
        return found

    options = ConnectionOptions(reduction=reduction, prompts=False)
    (found,) = compute_connections([trace], GRAPH, {"m": model}, [1.0], options, scorer)
    user, other = found["b"]
    counts = [stop - start for start, stop in places.values()]
    values = torch.tensor([3.0, -1.0] + [2.0] * (counts[0] - 2))
    wanted = {"mean": values.abs().mean(), "max": values.abs().max(), "sum": values.sum().abs()}[reduction]
    assert user.weight.item() == pytest.approx(wanted.item())
    assert other.weight.item() == pytest.approx(5.0 * (counts[1] if reduction == "sum" else 1))
    assert (user.share + other.share).item() == pytest.approx(1.0)
    assert user.tokens is not None
    assert user.tokens.sum().item() == pytest.approx(1.0)


def test_a_step_is_connected_as_its_agent_read_it(trace):
    model, plain = tiny_local_model(), tiny_local_model()
    model.soft = make_soft_prompts(model, ["b"], num_tokens=2)
    model.gates = {"a to b": torch.tensor(0.0)}
    (found,), (before,) = (
        compute_connections([trace], GRAPH, {"m": each}, [1.0], ConnectionOptions()) for each in (model, plain)
    )
    weights = {each.source: each.weight.sum().item() for each in found["b"]}
    assert weights["a"] == 0
    assert weights["user"] > 0
    assert weights["user"] != pytest.approx(next(e for e in before["b"] if e.source == "user").weight.sum().item())
    assert torch.allclose(found["a"][0].weight, before["a"][0].weight, rtol=1e-5)


def test_a_tools_code_has_an_even_share(model):
    reads = ("user", "a")
    graph = Graph(
        agents=(GRAPH.agents[0],),
        tools=(Tool(name="t", reads=reads, function=lambda texts: "north"),),
    )
    (trace,) = run_graph(graph, {"m": model}, [{"user": "a cheap hotel"}], options=RunOptions(on_empty="keep"))
    for code, shares in ((False, {"user": 1 / 2, "a": 1 / 2}), (True, {"user": 1 / 3, "a": 1 / 3, "t": 1 / 3})):
        (found,) = compute_connections([trace], graph, {"m": model}, [1.0], ConnectionOptions(code=code))
        assert {each.source: each.share.item() for each in found["t"]} == pytest.approx(shares)
        assert [each.kind for each in found["t"]] == ["message", "message", "code"][: len(shares)]
