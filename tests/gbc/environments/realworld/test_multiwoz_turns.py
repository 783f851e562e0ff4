"""The system of MultiWOZ, whose tasks come from a folder."""

import json
from pathlib import Path

import pytest

from framework.core.errors import DataError
from framework.gbc.environments.realworld.systems import load_systems
from framework.gbc.graph.unroll import unroll


def test_the_system_of_multiwoz_has_first_turns_of_a_folder_and_is_missing_without(tmp_path: Path):
    turns = [
        ("a", "a cheap place in the east", {"restaurant-pricerange": "cheap", "restaurant-area": "east"}),
        ("b", "a train on friday from ely", {"train-day": "friday", "train-departure": "ely"}),
        ("c", "a train on friday from ely", {"train-day": "friday", "train-departure": "ely"}),
        ("d", "an inexpensive place in the east", {"restaurant-pricerange": "cheap", "restaurant-area": "east"}),
        ("e", "a cheap place", {"restaurant-pricerange": "cheap"}),
    ]
    records = [
        {"ID": id, "turn_id": 0, "domains": [], "dialog": {"sys": [""], "usr": [text]}, "slot_values": slots}
        for id, text, slots in turns
    ]
    (tmp_path / "fewshot_1.json").write_text(json.dumps(records[:1]), encoding="utf-8")
    with pytest.raises(DataError, match="has too few first turns"):
        load_systems(tmp_path)
    (tmp_path / "fewshot_2.json").write_text(json.dumps(records[1:]), encoding="utf-8")
    system = load_systems(tmp_path)["multiwoz"]
    assert [task["expected"] for task in system.tasks] == [
        {"domain": "restaurant", "pricerange": "cheap", "area": "east"},
        {"domain": "train", "day": "friday", "departure": "ely"},
    ]
    unroll(system.graph)
    for fault in system.faults:
        assert fault.planted(system.graph) != system.graph
