"""Credit by edits: the choice of edits by hand, axioms on a random model, and tools that are run again."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from framework.core.errors import ConfigError
from framework.gbc.attribution.attribute import attribute
from framework.gbc.attribution.counterfactual_edits import choose_edits
from framework.gbc.attribution.first_order_edits import FirstOrderEdits
from framework.gbc.attribution.options import AttributionOptions, CounterfactualEditOptions
from framework.gbc.execution.runner import RunOptions, run_graph
from framework.gbc.graph.spec import Agent, Graph, Tool
from framework.gbc.graph.verbal_loss import Place, VerbalLoss
from framework.gbc.language_models.agent_parameters import gate_name
from framework.gbc.language_models.straight_through import make_soft_prompts
from framework.testing.language_models import tiny_local_model

OPTIONS = AttributionOptions(edits=CounterfactualEditOptions(alternatives=4))


def effects(drops: list[list[float]], harms: list[float], **changes: Any) -> FirstOrderEdits:
    found: dict[str, Any] = {
        "margins": torch.ones(len(drops)),
        "drops": torch.tensor(drops),
        "harms": torch.tensor(harms or [0.0] * len(drops[0])),
    }
    return FirstOrderEdits(**(found | changes))


def test_one_edit_that_corrects_all_is_chosen_before_many():
    # Each of the first two corrects a token in full, the third corrects both by 0.8.
    chosen = choose_edits(
        effects([[5.0, 0.0, 4.0], [0.0, 10.0, 8.0]], []), torch.tensor([1.0, 1.0]), CounterfactualEditOptions()
    )
    assert chosen[:, 2].tolist() == pytest.approx([0.8, 0.8])
    # What is left goes to the others.
    assert chosen.sum(dim=1).tolist() == pytest.approx([1.0, 1.0])


def test_an_edit_that_breaks_what_is_right_is_not_chosen():
    drops, harms = [[5.0, 4.0]], [1.5, 0.0]
    kept = choose_edits(effects(drops, harms), torch.tensor([1.0]), CounterfactualEditOptions(max_edits=1, keep=1.0))
    assert kept.tolist() == [[0.0, pytest.approx(0.8)]]
    # What it breaks is bounded: three tokens at most.
    worth = CounterfactualEditOptions(max_edits=1, keep=0.3)
    assert choose_edits(effects(drops, [99.0, 0.1]), torch.tensor([1.0]), worth).tolist() == [[0.0, pytest.approx(0.8)]]
    assert choose_edits(effects([[5.0, 0.1]], [99.0, 0.0]), torch.tensor([1.0]), worth).tolist() == [[1.0, 0.0]]
    careless = choose_edits(
        effects(drops, harms), torch.tensor([1.0]), CounterfactualEditOptions(max_edits=1, keep=0.0)
    )
    assert careless.tolist() == [[1.0, 0.0]]
    assert not choose_edits(effects([[-1.0, 0.0]], []), torch.tensor([1.0]), CounterfactualEditOptions()).any()


def test_what_comes_out_right_by_itself_has_no_cause():
    found = effects([[5.0, 0.0], [0.0, 5.0]], [], margins=torch.tensor([1.0, -1.0]))
    assert choose_edits(found, torch.tensor([1.0, 1.0]), CounterfactualEditOptions()).tolist() == [
        [1.0, 0.0],
        [0.0, 0.0],
    ]


def shout(texts: Mapping[str, str]) -> str:
    return texts["a"].upper()


def agent(name: str, *reads: str) -> Agent:
    return Agent(name=name, prompt=f"Be {name}.", model="m", reads=reads, max_new_tokens=6)


GRAPH = Graph(
    agents=(agent("a", "user"), agent("unread", "user"), agent("end", "a", "tool")),
    tools=(Tool(name="tool", reads=("a",), function=shout, estimator="tool_replay"),),
    outputs=("end",),
)


@pytest.fixture(scope="module")
def model():
    return tiny_local_model()


@pytest.fixture(scope="module")
def traces(model):
    tasks = [{"user": text} for text in ("a cheap hotel", "a train", "north")]
    return list(run_graph(GRAPH, {"m": model}, tasks, options=RunOptions(on_empty="keep")))


def loss_of(trace, expected: str = "north") -> VerbalLoss:
    spans = [span for span in trace.step("end").output_spans if span[0] < span[1]]
    place = Place(step="end", start=spans[1][0], stop=spans[1][1], expected=expected)
    return VerbalLoss(value=0.5, text="wrong", places=(place,))


@pytest.mark.parametrize("expected", ["north", ""])
def test_credits_add_up_to_the_loss(model, traces, expected: str):
    losses = [loss_of(trace, expected) for trace in traces]
    for found in attribute(traces, GRAPH, {"m": model}, losses, OPTIONS):
        assert sum(each.own for each in found.agents) == pytest.approx(0.5, abs=1e-9)
        assert found.gap == pytest.approx(0.0, abs=1e-9)
        assert all(each.own >= 0 for each in found.agents)
        # Nobody reads it; and what users say is taken as given.
        assert found.credit_of("unread").own == found.credit_of("unread").through == found.credit_of("user").own == 0


def test_a_batch_gives_what_each_trace_gives_in_any_order(model, traces):
    losses = [loss_of(trace) for trace in traces]
    together = attribute(traces, GRAPH, {"m": model}, losses, OPTIONS)
    turned = attribute(traces[::-1], GRAPH, {"m": model}, losses[::-1], OPTIONS)[::-1]
    for index, (trace, loss) in enumerate(zip(traces, losses, strict=True)):
        (alone,) = attribute([trace], GRAPH, {"m": model}, [loss], OPTIONS)
        for other in (together[index], turned[index]):
            assert [a.own for a in alone.agents] == pytest.approx([a.own for a in other.agents], abs=1e-4)


def test_a_loss_without_places_is_credited_by_gradients(model, traces):
    plain = VerbalLoss(value=1.0, text="wrong")
    (by_edits,) = attribute(traces[:1], GRAPH, {"m": model}, [plain], OPTIONS)
    (by_gradients,) = attribute(traces[:1], GRAPH, {"m": model}, [plain], replace(OPTIONS, edits=None))
    assert by_edits.agents == by_gradients.agents


@pytest.mark.parametrize("changes", [{"alternatives": 0}, {"max_edits": 0}, {"keep": -1.0}])
def test_options_that_cannot_be_used(changes: dict[str, Any]):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        CounterfactualEditOptions(**changes)


def test_only_tools_are_run_again():
    with pytest.raises(ConfigError, match="declares tool_replay"):
        replace(GRAPH.agents[0], estimator="tool_replay")


def test_a_model_without_gradients(traces):
    with pytest.raises(ConfigError, match="its model 'm' gives none"):
        attribute(traces[:1], GRAPH, {}, [loss_of(traces[0])], OPTIONS)


def test_a_message_behind_a_closed_gate_is_no_cause(traces):
    model = tiny_local_model()
    model.soft = make_soft_prompts(model, ["end"], num_tokens=2)
    trace = traces[0]
    sources = {block.source for block in trace.step("end").messages}
    model.gates = {gate_name(source, "end"): torch.tensor(0.0) for source in sources}
    (found,) = attribute([trace], GRAPH, {"m": model}, [loss_of(trace)], OPTIONS)
    flows = {edge.source: edge.credit for edge in found.edges if edge.target == "end" and edge.source in sources}
    assert flows.keys() == sources
    assert not any(flows.values())
