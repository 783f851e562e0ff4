"""What a training on MultiWOZ takes from its episodes."""

import pytest

from framework.core.errors import ConfigError, DataError
from framework.core.serialization import to_json
from framework.gbc.environments.multiwoz.training import Loss, Tasks, turn_targets


def test_turns_as_tasks_with_right_outputs(dialogue, write_release):
    episode = to_json(dialogue)
    states = Tasks(max_context_turns=1, max_turns=2)(episode)
    assert [task["turn"] for task in states] == [0, 1]
    targets = turn_targets(states[0])
    assert targets == {
        "restaurant": "none",
        "hotel": "hotel-area=north; hotel-parking=yes; hotel-type=guesthouse",
        "attraction": "none",
        "train": "none",
        "taxi": "none",
    }
    answers = Tasks(release=str(write_release()))(episode)
    assert len(answers) == len(dialogue.turns)
    assert turn_targets(answers[0])["responder"] == dialogue.turns[0].system


def test_the_loss_of_a_turn(dialogue, write_release, make_trace):
    release = str(write_release())
    task = Tasks(release=release)(to_json(dialogue))[1]
    state = turn_targets(task)["hotel"]
    assert Loss(release)(make_trace({"hotel": state, "responder": "Call 01223353888."}, **task)).value == 0
    assert Loss(release)(make_trace({"hotel": "none", "responder": "Hello."}, **task)).value == 1


def test_bounds_that_cannot_be():
    with pytest.raises(ConfigError, match="max_turns 0"):
        Tasks(max_turns=0)


def test_a_release_that_is_missing_is_found_at_once():
    for make in (Tasks, Loss):
        with pytest.raises(DataError, match="no such release cannot be read"):
            make(release="no such release")
