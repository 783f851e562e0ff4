"""The search for prompts: keeps what helps, goes on from a state, and survives a model that fails to write."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytest

from framework.core.errors import CheckpointError, ConfigError, FrameworkError
from framework.gbc.attribution.attribute import attribute
from framework.gbc.attribution.results import AgentCredit, mean_attribution, mean_credits
from framework.gbc.execution.runner import RunOptions, run_graph
from framework.gbc.graph.spec import Agent, Graph
from framework.gbc.graph.verbal_loss import VerbalLoss
from framework.gbc.language_models.interface import Reply, Request
from framework.gbc.language_models.server import ServerError
from framework.gbc.prompt_search.candidates import Candidates
from framework.gbc.prompt_search.opro import Opro
from framework.gbc.training.prompt_steps import AttributedError, SearchConfig, TrainingSearch, example_of
from framework.testing.language_models import tiny_local_model

GRAPH = Graph(
    agents=(
        Agent(name="a", prompt="A", model="m", reads=("user",), max_new_tokens=3),
        Agent(name="b", prompt="B", model="m", reads=("a",), max_new_tokens=3),
    )
)
CONFIG = SearchConfig(candidates="unread.yaml")


def number_of_stars(graph: Graph) -> float:
    """A loss that falls with every star in a prompt."""
    return 1.0 - 0.1 * "".join(graph.prompts.values()).count("*")


def make(proposer: Any = None, **options: Any) -> TrainingSearch:
    settings: dict[str, Any] = {"config": CONFIG, "seed": 0, "evaluate": number_of_stars, **options}
    candidates = Candidates({"a": ["A*", "A"], "b": ["B**", "B-"]})
    return TrainingSearch(GRAPH, proposer or candidates, settings.pop("config"), synchronized=nullcontext, **settings)


def blame(agent: str, *, place: int = 0) -> AttributedError:
    credits = tuple(
        AgentCredit(name=name, through=1.0, own=float(name == agent), walk=float(name == agent)) for name in ("a", "b")
    )
    return AttributedError(place=(place, 0), loss=0.5, credits=credits)


def never() -> bool:
    return False


def test_what_helps_is_kept_and_the_blamed_agent_is_changed_first():
    search = make()
    search.note([blame("b")])
    assert search.loss_before is None
    found = []
    while not search.finished:
        found += search.step(stop=never)
    assert next(iter(found[0].changes)) == "b"
    assert search.prompts == {"a": "A*", "b": "B**"}
    assert search.state is not None
    assert search.state.loss == pytest.approx(0.7)
    assert {next(iter(trial.changes.values())) for trial in found if trial.kept} == {"A*", "B**"}
    assert search.step(stop=never) == ()


def test_no_trial_begins_after_the_stop():
    search = make()
    assert search.step(stop=lambda: True) == ()
    assert search.prompts == GRAPH.prompts


def test_a_restored_search_goes_on_alike():
    whole, first, second = make(), make(), make()
    batches = [[blame("a", place=1)], [blame("b", place=2), blame("b", place=3)]]
    for batch in batches:
        whole.note(batch)
        whole.step(stop=never)
    first.note(batches[0])
    first.step(stop=never)
    # Errors that no proposal has rested on yet are kept too.
    first.note(batches[1])
    second.load_state_dict(first.state_dict())
    second.step(stop=never)
    assert second.state_dict() == whole.state_dict()
    other = TrainingSearch(
        GRAPH, Candidates({"a": ["x"]}), CONFIG, seed=1, evaluate=number_of_stars, synchronized=nullcontext
    )
    with pytest.raises(CheckpointError, match="another graph or seed"):
        other.load_state_dict(first.state_dict())


def test_losses_that_something_else_changes_are_measured_anew():
    values = iter([0.9, 0.95, 0.3, 0.2])
    search = make(loss_drifts=True, evaluate=lambda graph: next(values))
    (first,) = search.step(stop=never)
    assert search.loss_before == 0.9
    (second,) = search.step(stop=never)
    assert search.loss_before == 0.3
    assert not first.kept
    assert second.kept
    assert search.state is not None
    assert (search.state.evaluations, search.state.loss) == (4, 0.2)


class Writer:
    """Writes what it is told, or fails."""

    def __init__(self, answer: str | FrameworkError) -> None:
        self.answer, self.asked = answer, list[Request]()

    def reply(self, requests: Sequence[Request]) -> list[Reply | FrameworkError]:
        self.asked += requests
        if isinstance(self.answer, FrameworkError):
            return [self.answer for _ in requests]
        fields: dict[str, Any] = {
            "input_ids": (),
            "input_spans": (),
            "blocks": (),
            "output_ids": (),
            "output_spans": (),
        }
        return [Reply(input_text="", output=self.answer, finish="stop", **fields) for _ in requests]


def wrong_runs() -> list[AttributedError]:
    model = tiny_local_model()
    traces = list(run_graph(GRAPH, {"m": model}, [{"id": "t", "user": "x"}], options=RunOptions(on_empty="keep")))
    losses = [VerbalLoss(value=0.5, text="Half of it is wrong.")]
    found = attribute(traces, GRAPH, {"m": model}, losses)
    assert (
        mean_credits([found[0].agents], [0.5])
        == mean_attribution(found, [step.name for step in traces[0].steps]).agents
    )
    return [
        AttributedError(
            place=(0, 0), loss=0.5, credits=found[0].agents, example=example_of(traces[0], losses[0], found[0])
        )
    ]


def test_a_writing_model_sees_what_went_wrong():
    writer = Writer("<prompt>A*</prompt>")
    config = SearchConfig(proposer="opro", writer="big")
    search, again = (make(Opro(writer, by="through"), config=config) for _ in range(2))
    search.note(wrong_runs())
    again.load_state_dict(search.state_dict())
    (trial,) = again.step(stop=never)
    assert trial.kept
    assert "Half of it is wrong." in writer.asked[0].message


def test_a_writing_model_that_fails_costs_a_proposal_and_no_more():
    writer = Writer(ServerError("it is down", hint="start it"))
    search = make(Opro(writer, by="through"), config=SearchConfig(proposer="opro", writer="big"))
    search.note(wrong_runs())
    assert search.step(stop=never) == ()
    assert search.num_failed_proposals == 1
    assert search.state is not None
    assert search.state.step == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"proposer": "opro"}, "opro without writer"),
        ({}, "candidates without candidates"),
        ({"candidates": "x", "every_n_steps": 0}, "every_n_steps 0"),
    ],
)
def test_searches_that_cannot_be(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        SearchConfig(**options)
