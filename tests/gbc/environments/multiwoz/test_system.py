"""The graph of the recipe: what runs, what the database tool says, and blame where a fault was planted."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from framework.core.errors import ConfigError
from framework.gbc.environments.multiwoz.dataset.database import Database
from framework.gbc.environments.multiwoz.dataset.dialogues import Dialogue
from framework.gbc.environments.multiwoz.dataset.slots import DOMAINS, SLOTS
from framework.gbc.environments.multiwoz.losses import TurnLoss
from framework.gbc.environments.multiwoz.success import Judge
from framework.gbc.environments.multiwoz.system import DatabaseTool, booking, load_system
from framework.gbc.environments.multiwoz.tasks import answers_of, format_state, predicted_state, response_tasks
from framework.gbc.execution.runner import run_graph
from framework.gbc.graph.spec import load_graph
from framework.gbc.language_models.interface import Reply, Request
from framework.gbc.language_models.prompt_encoding import render_blocks

GRAPH = Path(__file__).parents[4] / "recipes" / "gbc" / "graphs" / "multiwoz.yaml"


class ByLabels:
    """Stands for a language model: the workers answer with the labels, the responder with what the database says."""

    def __init__(self, dialogue: Dialogue) -> None:
        self.states = {turn.user: turn.state for turn in dialogue.turns}

    def reply(self, requests: Sequence[Request]) -> list[Reply]:
        return [self._reply(request) for request in requests]

    def _reply(self, request: Request) -> Reply:
        text, blocks = render_blocks(lambda prompt, message: f"{prompt}|{message}", request)
        state = next(state for user, state in self.states.items() if f"user:\n{user}\n" in request.message)
        if request.step == "manager":
            output = ", ".join(domain for domain in DOMAINS if any(slot.startswith(domain) for slot in state))
        elif request.step == "responder":
            output = request.message.partition("Database:\n")[2]
        else:
            output = format_state({slot: value for slot, value in state.items() if slot.startswith(request.step)})
        return Reply(
            input_text=text, input_ids=(), input_spans=(), blocks=blocks, output=output, output_ids=(),
            output_spans=(), finish="stop",
        )  # fmt: skip


def test_a_dialogue_runs_through_the_graph(write_release: Callable[..., Path], dialogue: Dialogue, database: Database):
    graph = load_system(GRAPH, release=str(write_release()))
    tasks = response_tasks(dialogue, database)
    traces = list(run_graph(graph, {"main": ByLabels(dialogue)}, tasks))
    assert [trace.failure for trace in traces] == [None] * 3
    assert [predicted_state(trace) for trace in traces] == [turn.state for turn in dialogue.turns]
    first, second, third = traces
    assert first.outputs == ("hotel", "responder")
    assert set(first.skipped) == {"restaurant", "attraction", "train", "taxi"}
    assert first.step("hotel").controls == ("manager",)
    assert first.step("database").output.startswith("hotel: 1 found\n- name=acorn guest house; ")
    assert re.search(r"\nhotel: booked acorn guest house, reference [A-Z0-9]{8}$", second.step("database").output)
    assert "taxi: booked, " in third.output
    # Everything is told and right, so there is no loss, and the dialogue succeeds.
    assert [TurnLoss(database)(trace).value for trace in traces] == [0.0, 0.0, 0.0]
    judged = Judge(database).judge(dialogue.goal, answers_of(dialogue, traces))
    assert (judged.inform, judged.success) == (True, True)


def test_a_planted_fault_is_named(write_release: Callable[..., Path], dialogue: Dialogue, database: Database):
    graph = load_system(GRAPH, release=str(write_release()))
    tasks = response_tasks(dialogue, database)[:1]
    given = [{"hotel": "hotel-area=south"}]
    (trace,) = run_graph(graph, {"main": ByLabels(dialogue)}, tasks, given=given)
    loss = TurnLoss(database)(trace)
    assert loss.value > 0
    assert "hotel-area should be 'north', it was 'south' (wrong value)." in loss.text
    assert "'the lensfield hotel' was offered, but does not fit" in loss.text
    assert {place.step for place in loss.places} == {"hotel", "responder"}


def test_a_release_that_is_missing_ends_a_run_at_once(dialogue: Dialogue, database: Database):
    graph = load_system(GRAPH, release="no such release")
    with pytest.raises(ConfigError, match="release: no such release cannot be read"):
        list(run_graph(graph, {"main": ByLabels(dialogue)}, response_tasks(dialogue, database)))


def test_the_prompts_name_every_slot():
    graph = load_graph(GRAPH)
    assert graph.outputs == (*("restaurant", "hotel", "attraction", "train", "taxi"), "responder")
    for domain in DOMAINS:
        prompt = graph.prompts[domain]
        assert all(f"{domain}-{slot}" in prompt for slot in SLOTS[domain])
        assert not [slot for slot in re.findall(r"\w+-\w+(?= \(|,|\.)", prompt) if not slot.startswith(domain)]
    assert all(agent.role for agent in graph.agents)


def test_the_database_tool(write_release: Callable[..., Path]):
    tool = DatabaseTool(str(write_release()), num_shown=1)
    assert tool({"hotel": "none", "train": ""}) == "nothing was asked for"
    text = tool({"hotel": "area=north", "train": "train-destination=ely", "manager": "hotel"})
    assert text.splitlines()[0] == "hotel: 2 found"
    assert text.splitlines()[2] == "train: 2 found"
    assert text.splitlines()[3].startswith("- trainid=TR0001; departure=cambridge; ")
    assert len(text.splitlines()) == 4
    assert tool({"taxi": "departure=a; destination=b; leaveat=5pm"}).startswith("taxi: booked, ")
    with pytest.raises(ConfigError, match="num_shown -1"):
        DatabaseTool("x", num_shown=-1)


def test_the_database_tool_with_a_state_that_changes(write_release: Callable[..., Path]):
    tool = DatabaseTool(str(write_release()), num_shown=0)
    state = "train destination=ely; hotel area=north; stars=4"
    assert tool({"state": state, "hotel": "none"}) == "hotel: 1 found"
    assert tool({"state": state, "hotel": "stars=none"}) == "hotel: 2 found"
    assert tool({"state": state, "hotel": "stars=3", "train": "day=friday"}) == "hotel: 1 found\ntrain: 2 found"
    # No worker ran: the domain that changed last.
    assert tool({"state": state}) == "hotel: 1 found"
    assert tool({"state": "none"}) == "nothing was asked for"


def test_bookings(database: Database):
    ride = {"taxi-departure": "a", "taxi-destination": "b"}
    assert booking(database, "taxi", ride) == ""
    made = booking(database, "taxi", ride | {"taxi-arriveby": "10:00"})
    assert re.fullmatch(r"taxi: booked, (black|red) (toyota|skoda), phone 07\d{9}", made)
    stay = {"hotel-area": "north", "hotel-book day": "friday", "hotel-book people": "2"}
    assert booking(database, "hotel", stay) == ""
    made = booking(database, "hotel", stay | {"hotel-book stay": "2"})
    assert made == booking(database, "hotel", stay | {"hotel-book stay": "2", "train-day": "friday"})
    assert booking(database, "hotel", stay | {"hotel-book stay": "3"}) != made
    assert booking(database, "hotel", stay | {"hotel-book stay": "2", "hotel-area": "west"}) == ""
    assert booking(database, "attraction", {"attraction-area": "centre"}) == ""
