"""State tracking turn by turn."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from framework.core.errors import DataError
from framework.core.serialization import to_json
from framework.gbc.environments.multiwoz.dataset.dialogues import Dialogue, Turn
from framework.gbc.environments.multiwoz.dataset.slots import DOMAINS
from framework.gbc.environments.multiwoz.state_tracking.turns import (
    apply_change,
    change_targets,
    change_tasks,
    exchanges,
    said_change,
    track,
    tracking_metrics,
    write_change,
    write_state,
)
from framework.gbc.execution.runner import RunOptions
from framework.gbc.graph.spec import load_graph
from framework.gbc.language_models.interface import Reply, Request

GRAPH = Path(__file__).parents[5] / "recipes" / "gbc" / "graphs" / "multiwoz_state.yaml"


def make_dialogue(id: str = "A.json") -> Dialogue:
    first = {"hotel-area": "north", "hotel-book day": "friday"}
    second = {"hotel-area": "south|centre", "train-leaveat": "09:15"}
    turns = (
        Turn(user="A hotel in the North .", system="Done !", state={"hotel-area": "north"}),
        Turn(user="from friday", system="The king 's arms , at 9:15 ?", state=first),
        Turn(user="Yes .", system="", state=second),
    )
    return Dialogue(id=id, split=None, domains=("hotel", "train"), goal={}, turns=turns)


class Oracle:
    """Says what the labels say, from the user's words alone; what `forgets` names, it never says."""

    def __init__(self, *, forgets: str = "") -> None:
        self.says = {each.user: each.change for each in exchanges(make_dialogue())}
        self.forgets = forgets
        self.seen: list[str] = []

    def reply(self, requests: Sequence[Request]) -> list[Reply]:
        answers = []
        for request in requests:
            state, _, user = (piece.text for piece in request.pieces if piece.source is not None)
            self.seen.append(state)
            change = {slot: value for slot, value in self.says[user].items() if slot != self.forgets}
            text = write_change(change, request.step)
            answers.append(
                Reply(
                    input_text="", input_ids=(), input_spans=(), blocks=(), output=text, output_ids=(), output_spans=(),
                    finish="stop",
                )
            )  # fmt: skip
        return answers


def test_turns_are_changes():
    first, second, third = exchanges(make_dialogue())
    assert (first.before, first.system, first.user) == ({}, "", "a hotel in the north")
    assert second.change == {"hotel-book day": "friday"}
    # In the spelling of the values; of alternatives the first; what is no longer there is taken out.
    assert third.system == "the kings arms at 09:15"
    assert third.change == {"hotel-area": "south", "train-leaveat": "09:15", "hotel-book day": ""}
    assert write_change(third.change, "hotel") == "area=south; book day=none"
    assert write_change(third.change, "taxi") == "none"


def test_the_domain_that_changed_last_comes_last():
    state = apply_change({"hotel-area": "north", "train-day": "friday"}, {"hotel-area": "", "hotel-stars": "4"})
    assert state == {"train-day": "friday", "hotel-stars": "4"}
    assert write_state(apply_change(state, {"train-day": "sunday", "train-departure": "ely"})) == (
        "hotel stars=4; train day=sunday; departure=ely"
    )
    assert write_state({}) == "none"


def test_an_agent_speaks_for_its_domain_alone(make_trace):
    trace = make_trace({"hotel": "area=north; train-day=friday; food=thai; stars=none", "taxi": "leaveat=9:15"})
    assert said_change(trace) == {"hotel-area": "north", "hotel-stars": "", "taxi-leaveat": "09:15"}


def test_tasks_of_a_training():
    tasks = change_tasks(to_json(make_dialogue()))
    assert tasks[1] | {"expected": None} == {
        "id": "A/1", "dialogue": "A.json", "turn": 1, "domains": ["hotel", "train"], "state": "hotel area=north",
        "system": "done", "user": "from friday", "expected": None,
    }  # fmt: skip
    # One more agent, another in every turn.
    assert change_targets(tasks[2]) == {"hotel": "area=south", "train": "leaveat=09:15", "taxi": "none"}
    assert change_targets(tasks[0]) == {"attraction": "none", "hotel": "area=north", "train": "none"}
    assert change_targets({**tasks[0], "domains": list(DOMAINS)}).keys() == set(DOMAINS)


def test_a_system_reads_what_it_has_said_itself():
    graph = load_graph(GRAPH)
    dialogues = [make_dialogue(), make_dialogue("B.json")]
    oracle = Oracle()
    tracked = list(track(graph, {"micro": oracle}, dialogues, options=RunOptions(tasks_at_once=1)))
    assert [turn.task["id"] for turn in tracked] == ["A/0", "B/0", "A/1", "B/1", "A/2", "B/2"]
    assert tracking_metrics(tracked)["joint_goal_accuracy"] == 1
    # It says that the area is in the south only once it has been in the north.
    forgetful = Oracle(forgets="hotel-area")
    tracked = list(track(graph, {"micro": forgetful}, dialogues[:1]))
    assert set(forgetful.seen) == {"none", "hotel book day=friday"}
    assert [turn.state for turn in tracked] == [{}, {"hotel-book day": "friday"}, {"train-leaveat": "09:15"}]
    found = tracking_metrics(tracked)
    assert found["joint_goal_accuracy"] == 0
    assert found["joint_goal_accuracy/train"] == 1
    assert (found["slot_precision"], found["slot_recall"]) == (1, pytest.approx(2 / 5))


class Broken:
    """Answers nothing."""

    def reply(self, requests: Sequence[Request]) -> list[DataError]:
        return [DataError("full", hint="wait") for _ in requests]


def test_a_turn_that_fails_changes_nothing():
    graph = load_graph(GRAPH)
    tracked = list(track(graph, {"micro": Broken()}, [make_dialogue()]))
    assert [turn.state for turn in tracked] == [{}, {}, {}]
    assert all(turn.failure is not None and "full" in turn.failure for turn in tracked)
    with pytest.raises(DataError, match="no dialogues to track"):
        list(track(graph, {"micro": Broken()}, []))
