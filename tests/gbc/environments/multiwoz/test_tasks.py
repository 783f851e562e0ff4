"""Tasks of a graph, and states as agents write them."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from framework.gbc.environments.multiwoz.dataset.database import Database
from framework.gbc.environments.multiwoz.dataset.dialogues import Dialogue
from framework.gbc.environments.multiwoz.success import Answer
from framework.gbc.environments.multiwoz.tasks import (
    answers_of,
    by_dialogue,
    format_state,
    parse_state,
    predicted_state,
    response_tasks,
    state_fields,
    state_tasks,
    tasks_of,
)
from framework.gbc.graph.trace import Trace


def test_state_tracking(dialogue: Dialogue):
    first, second, third = state_tasks(dialogue)
    assert first == {
        "id": "MUL0001/0",
        "dialogue": "MUL0001.json",
        "turn": 0,
        "domains": ["hotel", "taxi"],
        "context": "(the dialogue begins)",
        "user": "I need a guest house in the north with parking .",
        "expected": {"hotel-area": "north", "hotel-parking": "yes", "hotel-type": "guesthouse"},
    }
    assert second["context"] == f"User: {first['user']}\nSystem: Acorn Guest House is nice ."
    assert third["context"].startswith(second["context"])
    assert len(third["expected"]) == 10
    (_, _, short) = state_tasks(dialogue, max_context_turns=1)
    assert short["context"] == third["context"].removeprefix(second["context"] + "\n")
    assert state_tasks(dialogue, max_context_turns=0)[2]["context"] == first["context"]


def test_answering(dialogue: Dialogue, database: Database):
    first, second, third = response_tasks(dialogue, database)
    assert first["state"] == "hotel-area=north; hotel-parking=yes; hotel-type=guesthouse"
    assert first["database"].splitlines()[0] == "hotel: 1 found"
    assert first["database"].splitlines()[1].startswith("- name=acorn guest house; area=north; type=guesthouse")
    assert (second["requested"], second["booked"]) == (["hotel-phone"], ["hotel"])
    assert second["reference"] == "Done , ABCD1234 . Call 01223353888 ."
    assert third["database"] == "nothing was asked for"  # a taxi needs no search
    last = replace(dialogue.turns[2], system="")
    assert len(response_tasks(replace(dialogue, turns=(*dialogue.turns[:2], last)), database)) == 2
    assert [task["id"] for task in tasks_of([dialogue])] == ["MUL0001/0", "MUL0001/1", "MUL0001/2"]
    assert tasks_of([dialogue], database) == [first, second, third]


@pytest.mark.parametrize(
    ("text", "domain", "expected"),
    [
        ("hotel-area=north; hotel-type=guest house", "", {"hotel-area": "north", "hotel-type": "guesthouse"}),
        ("State: Hotel_Area = North\nbook people=two", "hotel", {"hotel-area": "north", "hotel-book people": "2"}),
        ("area=north; stars=none; parking=not mentioned; x=1", "hotel", {"hotel-area": "north"}),
        ("area=north", "", {}),
        ("train-leaveAt=9:15", "hotel", {"train-leaveat": "09:15"}),
        ("area=north; area=south", "hotel", {"hotel-area": "south"}),
        ("none", "hotel", {}),
        ("", "", {}),
    ],
)
def test_states_of_agents(text: str, domain: str, expected: dict[str, str]):
    assert parse_state(text, domain=domain) == expected


def test_a_state_survives_its_text(dialogue: Dialogue):
    for turn in dialogue.turns:
        assert parse_state(format_state(turn.state)) == turn.state
    assert format_state({}) == "none"


def test_fields_keep_their_places():
    text = "hotel-area = north ; colour=red"
    area, colour = state_fields(text)
    assert (area.name, text[area.start : area.stop]) == ("hotel-area", "north")
    assert (colour.name, colour.value, text[colour.start : colour.stop]) == ("colour", "red", "red")


def test_traces_to_states_and_answers(dialogue: Dialogue, make_trace: Callable[..., Trace]):
    workers = {"hotel": "area=north", "taxi": "taxi-leaveat=5pm", "responder": "price=low"}
    first, second, third = state_tasks(dialogue)
    traces = [make_trace({"all": "none"}, **third), make_trace(workers, **first)]
    failed = make_trace({"hotel": "area=north"}, failure="too long", **second)
    assert predicted_state(traces[1]) == {"hotel-area": "north", "taxi-leaveat": "17:00"}
    assert by_dialogue([*traces, failed]) == {"MUL0001.json": [traces[1], failed, traces[0]]}
    assert answers_of(dialogue, [*traces, failed]) == [
        Answer(text="price=low", state={"hotel-area": "north", "taxi-leaveat": "17:00"}, booked=()),
        Answer(text="", state={}, booked=("hotel",)),
        Answer(text="none", state={}, booked=("hotel", "taxi")),
    ]
