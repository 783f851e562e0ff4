"""Predictions in the standardised evaluation's form, by hand and, where they are at hand, of published systems."""

import json
from pathlib import Path

import pytest

from framework.core.errors import DataError
from framework.gbc.environments.multiwoz.dataset.dialogues import Dialogue, Goal, Turn, read_dialogue
from framework.gbc.environments.multiwoz.dataset.release import read_release, read_tables
from framework.gbc.environments.multiwoz.predictions import PredictedTurn, judge_predictions, read_predictions
from framework.gbc.environments.multiwoz.standard_queries import StandardDatabase
from framework.gbc.environments.multiwoz.success import Judge
from tests.gbc.environments.multiwoz.test_standard_queries import TABLES

STATE = {"hotel": {"area": "north"}}
DIALOGUE = Dialogue(
    id="SNG0001.json",
    split="test",
    domains=("hotel",),
    goal={
        "hotel": Goal(inform={"area": "north"}, request=("phone", "reference")),
        "train": Goal(inform={"day": "monday"}, request=()),
    },
    turns=(
        Turn(user="a", system="b", state={"hotel-area": "north"}),
        Turn(user="a", system="b", state={"hotel-area": "north", "train-day": "monday"}, booked=("hotel",)),
    ),
)
ANSWERS = ("Try [hotel_name].", "[hotel_phone], [value_reference]. A train is [train_id].")
PUBLISHED = {"augpt": (76.6, 60.5), "damd": (57.9, 47.6), "ubar": (83.4, 70.3), "mintl": (73.7, 65.4)}


def judged(*turns: PredictedTurn) -> tuple[dict[str, bool], dict[str, bool]]:
    (found,) = judge_predictions(
        {"sng0001": turns}, {DIALOGUE.id: DIALOGUE}, Judge(StandardDatabase(TABLES), plain=False)
    ).values()
    return found.informed, found.told


def test_active_domains_of_predictions_count():
    first, second = ANSWERS
    both = ("hotel", "train")
    told = PredictedTurn(response=second, state={**STATE, "train": {"day": "monday"}}, active_domains=both)
    assert judged(PredictedTurn(response=first, state=STATE, active_domains=("hotel",)), told) == (
        {"hotel": True, "train": True},
        {"hotel": True, "train": True},
    )
    # A placeholder of another domain than the turn is about says nothing.
    informed, _ = judged(PredictedTurn(response=first, state=STATE, active_domains=("train",)), told)
    assert informed == {"hotel": False, "train": True}


def test_active_domains_are_estimated_where_a_turn_has_none():
    first, second = ANSWERS
    turns = [PredictedTurn(response=first, state=STATE), PredictedTurn(response=second, state=STATE)]
    # Without a change the second turn is still about the hotel; nobody asked for the train's number.
    assert judged(*turns) == ({"hotel": True, "train": True}, {"hotel": True, "train": True})
    # The labels' second turn is about the train, so the phone is told for it.
    labelled = judged(PredictedTurn(response=first), PredictedTurn(response=second))
    assert labelled == ({"hotel": True, "train": True}, {"hotel": False, "train": True})


def test_spellings_of_slots():
    state = {"hotel": {"area": "north", "book people": "3"}, "train": {"leave at": "08:00", "arrive": "11:00"}}
    told = PredictedTurn(response=ANSWERS[1], state=state, active_domains=("train",))
    informed, _ = judged(PredictedTurn(response=ANSWERS[0], state=STATE, active_domains=("hotel",)), told)
    assert informed == {"hotel": True, "train": True}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([], "is not an object of dialogues"),
        ({"sng0001": {}}, "dialogue sng0001 is not a list of turns"),
        ({"sng0001": [{"state": {}}]}, "dialogue sng0001, turn 0: .*response"),
        ({"sng0001": [{"response": "a", "state": {"hotel": {"area": 3}}}]}, "turn 0: .*area.*is '3'"),
    ],
)
def test_what_is_not_of_the_form(tmp_path, value, problem):
    (tmp_path / "p.json").write_text(json.dumps(value))
    with pytest.raises(DataError, match=rf"{problem}"):
        read_predictions(tmp_path / "p.json")


def test_dialogues_that_do_not_fit():
    turn = PredictedTurn(response="a")
    judge = Judge(StandardDatabase(TABLES), plain=False)
    with pytest.raises(DataError, match="the release has no dialogue sng0009"):
        judge_predictions({"sng0009": [turn]}, {DIALOGUE.id: DIALOGUE}, judge)
    with pytest.raises(DataError, match="dialogue sng0001 has 2 turns, 3 are predicted"):
        judge_predictions({"sng0001": [turn] * 3}, {DIALOGUE.id: DIALOGUE}, judge)
    with pytest.raises(DataError, match=r"dialogues sng0001 and SNG0001\.json are the same"):
        judge_predictions({"sng0001": [turn], "SNG0001.json": [turn]}, {DIALOGUE.id: DIALOGUE}, judge)


@pytest.mark.slow
@pytest.mark.parametrize("system", PUBLISHED)
def test_published_figures(real_data: Path, system: str):
    folder = real_data / "standard_evaluation"
    if not folder.is_dir():
        pytest.skip(f"{real_data} has no standard_evaluation with the test release and predictions/*.json")
    release = read_release(folder / "MULTIWOZ")
    dialogues = {id: read_dialogue(id, each, split="test") for id, each in release.dialogues.items()}
    judge = Judge(StandardDatabase(read_tables(folder / "MULTIWOZ")), plain=False)
    found = judge_predictions(read_predictions(folder / "predictions" / f"{system}.json"), dialogues, judge).values()
    inform, success = (
        100 * sum(each) / len(found) for each in zip(*((j.inform, j.success) for j in found), strict=True)
    )
    assert (inform, success) == pytest.approx(PUBLISHED[system], abs=0.1)
