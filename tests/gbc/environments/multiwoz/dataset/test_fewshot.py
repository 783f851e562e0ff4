"""The few-shot files of IC-DST."""

import json
from pathlib import Path
from typing import Any

import pytest

from framework.core.errors import DataError
from framework.gbc.environments.multiwoz.dataset.fewshot import read_fewshot_dialogue, read_turns


def records() -> list[dict[str, Any]]:
    users = ["a cheap hotel", "guest house on sat", "bye"]
    systems = ["", "what kind ?", "done ."]
    states = [
        {"hotel-pricerange": "cheap"},
        {"hotel-pricerange": "cheap", "hotel-type": "guest house", "hotel-book day": "sat"},
        {"hotel-pricerange": "cheap|moderate", "hotel-type": "none", "hospital-department": "x"},
    ]
    return [
        {
            "ID": "A.json",
            "turn_id": number,
            "domains": ["hotel", "hospital"],
            "dialog": {"sys": systems[: number + 1], "usr": users[: number + 1]},
            "slot_values": state,
            "turn_slot_values": {},
        }
        for number, state in enumerate(states)
    ]


def test_turns_become_a_dialogue(tmp_path: Path):
    path = tmp_path / "fewshot.json"
    path.write_text(json.dumps([*reversed(records()), records()[0] | {"ID": "B.json"}]))
    found = read_turns(path)
    assert list(found) == ["A.json", "B.json"]
    dialogue = read_fewshot_dialogue("A.json", found["A.json"])
    assert (dialogue.domains, dialogue.goal, dialogue.split) == (("hotel",), {}, None)
    assert [(turn.user, turn.system) for turn in dialogue.turns] == [
        ("a cheap hotel", "what kind ?"),
        ("guest house on sat", "done ."),
        ("bye", ""),
    ]
    assert [turn.state for turn in dialogue.turns] == [
        {"hotel-pricerange": "cheap"},
        {"hotel-book day": "saturday", "hotel-pricerange": "cheap", "hotel-type": "guesthouse"},
        {"hotel-pricerange": "cheap|moderate"},
    ]


def test_bad_dialogues():
    good = records()
    for bad, problem in (
        (good[1:], r"truncated: it has the turns \[1, 2\]"),
        ([*good[:2], good[2] | {"dialog": good[1]["dialog"]}], "truncated: 3 turns, 2 texts"),
        ([good[0] | {"slot_values": {"hotel-colour": "red"}}], "turn 0: label for an unknown slot 'hotel-colour'"),
        ([good[0] | {"domains": ["zoo"]}], "unknown domain 'zoo'"),
        ([{"turn_id": 0}], "has not the form"),
    ):
        with pytest.raises(DataError, match=problem):
            read_fewshot_dialogue("A.json", bad)


@pytest.mark.parametrize(
    ("text", "problem"), [("[", "is not JSON"), ("{}", "not a list"), ('[{"id": 1}]', "not a list")]
)
def test_bad_files(tmp_path: Path, text: str, problem: str):
    path = tmp_path / "fewshot.json"
    path.write_text(text)
    with pytest.raises(DataError, match=problem):
        read_turns(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_turns(tmp_path / "none.json")
