"""Dialogues of a release as episodes: labels by hand, and what is refused."""

import json
from typing import Any

import pytest

from framework.core.errors import DataError
from framework.core.serialization import to_json
from framework.gbc.environments.multiwoz.dataset.dialogues import Dialogue, Goal, dialogue_from_json, read_dialogue

STAY = {"hotel-area": "north", "hotel-parking": "yes", "hotel-type": "guesthouse"}
BOOKED = STAY | {
    "hotel-book day": "friday",
    "hotel-book people": "2",
    "hotel-book stay": "3",
    "hotel-name": "acorn guest house",
}
RIDE = {"taxi-departure": "acorn guest house", "taxi-destination": "caffe uno", "taxi-leaveat": "17:15"}


def test_labels_of_a_dialogue(dialogue: Dialogue):
    assert (dialogue.id, dialogue.split, dialogue.domains) == ("MUL0001.json", "train", ("hotel", "taxi"))
    assert dialogue.goal["hotel"] == Goal(
        inform={"area": "north", "type": "guesthouse", "parking": "yes"}, request=("phone", "stars", "reference")
    )
    assert dialogue.goal["taxi"] == Goal(inform={"leaveat": "17:15"}, request=("car", "phone"))
    assert [turn.state for turn in dialogue.turns] == [STAY, BOOKED, BOOKED | RIDE]
    assert [turn.requested for turn in dialogue.turns] == [(), ("hotel-phone",), ("taxi-car",)]
    assert [turn.booked for turn in dialogue.turns] == [(), ("hotel",), ("hotel", "taxi")]
    assert [turn.template for turn in dialogue.turns] == [
        "[hotel_name] is nice .",
        "Done , [hotel_reference] . Call [hotel_phone] .",
        "A [taxi_car] , [taxi_phone] .",
    ]


def test_json_and_back(dialogue: Dialogue):
    assert dialogue_from_json(json.loads(json.dumps(to_json(dialogue)))) == dialogue


def test_requests_without_acts_of_the_user(data: dict[str, Any]):
    value = data["MUL0001.json"]
    for turn in value["log"][::2]:
        del turn["dialog_act"]
    # What the goal asks for and the answer tells: the acts of the answer are its own, or in a file of their own.
    told = read_dialogue("x", value, split=None).turns
    assert [turn.requested for turn in told] == [(), ("hotel-reference", "hotel-phone"), ()]
    for turn in value["log"]:
        turn.pop("dialog_act", None)
        turn.pop("span_info", None)
    acts = {"1": "No Annotation", "3": {"Taxi-Inform": [["Car", "red skoda"], ["Leave", "17:15"]]}}
    told = read_dialogue("x", value, split=None, acts=acts).turns
    assert [turn.requested for turn in told] == [(), (), ("taxi-car",)]
    assert {turn.template for turn in told} == {None}


def changed(data: dict[str, Any], change: str) -> Any:
    value = data["MUL0001.json"]
    log = value["log"]
    labels = log[1]["metadata"]["hotel"]
    match change:
        case "empty":
            value["log"] = []
        case "truncated":
            del log[-1]
        case "no text":
            log[2]["text"] = "  "
        case "no answer":
            log[1]["text"] = ""
        case "no state":
            log[3]["metadata"] = {}
        case "unknown slot":
            labels["semi"]["colour"] = "red"
        case "unknown booking":
            labels["book"]["breakfast"] = "yes"
        case "unknown domain":
            log[1]["metadata"]["museum"] = labels
        case "a list":
            labels["semi"]["area"] = ["north"]
        case "no log":
            del value["log"]
        case "no object":
            return []
    return value


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("empty", "is empty"),
        ("truncated", "is truncated: turn 4 has no answer"),
        ("no text", "turn 1: the user says nothing"),
        ("no answer", "turn 0: the system says nothing"),
        ("no state", "turn 1 has no state"),
        ("unknown slot", "turn 0: label for an unknown slot '?hotel-colour"),
        ("unknown booking", "unknown slot 'hotel-book breakfast'"),
        ("unknown domain", "unknown domain 'museum'"),
        ("a list", "hotel area is .*not text"),
        ("no log", "has not the form"),
        ("no object", "has not the form"),
    ],
)
def test_bad_dialogues(data: dict[str, Any], change: str, problem: str):
    with pytest.raises(DataError, match=f"MUL0001.json.*{problem}"):
        read_dialogue("MUL0001.json", changed(data, change), split="train")


def test_an_unknown_slot_without_a_value_is_no_label(data: dict[str, Any]):
    value = data["SNG0002.json"]
    value["log"][1]["metadata"]["hotel"]["semi"]["colour"] = ""
    value["log"][1]["metadata"]["train"]["book"]["ticket"] = "2"
    value["log"][1]["metadata"]["hospital"]["semi"]["department"] = "neurology"
    assert all(slot.startswith("train-") for slot in read_dialogue("x", value, split=None).turns[0].state)


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("turns",), [], "is empty"),
        (("turns", 1, "state", "hotel-colour"), "red", "unknown slot 'hotel-colour'"),
        (("turns", 1, "user"), "", "the user says nothing"),
        (("turns", 0, "system"), "", "the system says nothing"),
        (("turns", 0, "requested"), ["zoo-phone"], "unknown domain 'zoo'"),
        (("domains",), ["zoo"], "unknown domain 'zoo'"),
        (("split",), "all", "split"),
        (("turns", 1, "state"), None, "turns.1..state"),
    ],
)
def test_bad_episodes(dialogue: Dialogue, path: tuple, value: Any, problem: str):
    episode = json.loads(json.dumps(to_json(dialogue)))
    place = episode
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(DataError, match=problem):
        dialogue_from_json(episode)
