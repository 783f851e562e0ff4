"""Inform and Success of dialogues by hand."""

import json
from pathlib import Path

import pytest

from framework.core.errors import DataError
from framework.gbc.environments.multiwoz.dataset.database import Database
from framework.gbc.environments.multiwoz.dataset.dialogues import Dialogue, Goal, read_dialogue
from framework.gbc.environments.multiwoz.dataset.release import read_release
from framework.gbc.environments.multiwoz.success import Answer, Judge, Judgement, active_domains

GOAL = {"hotel": Goal(inform={"area": "north", "stars": "4"}, request=("phone", "parking", "reference"))}
NORTH = {"hotel-area": "north"}
RIGHT = NORTH | {"hotel-stars": "4"}


def judged(database: Database, *answers: Answer, goal: dict[str, Goal] = GOAL) -> tuple[bool, bool]:
    found = Judge(database).judge(goal, answers)
    return found.inform, found.success


def answer(text: str, state: dict[str, str] = RIGHT, booked: tuple[str, ...] = ("hotel",)) -> Answer:
    return Answer(text=text, state=state, booked=booked)


def test_placeholders_offer_what_the_state_finds(database: Database):
    told = answer("[hotel_phone] [hotel_reference]")
    assert judged(database, answer("[hotel_name]"), told) == (True, True)
    assert judged(database, answer("[hotel_name]")) == (True, False)
    # Two hotels fit the first state, one of which is none of the goal's; the last offer counts.
    assert judged(database, answer("[hotel_name]", NORTH), told) == (False, False)
    assert judged(database, answer("[hotel_name]", NORTH), answer("[hotel_name]"), told) == (True, True)
    # What was on offer stays as long as the later states still find it.
    assert judged(database, answer("[hotel_name]"), answer("[hotel_name]", NORTH), told) == (True, True)
    # Without a domain, the placeholder is about what the state changed last.
    assert judged(database, answer("[name] [value_phone] [reference]")) == (True, True)
    assert judged(database, answer("[restaurant_name] [hotel_phone] [hotel_reference]")) == (False, False)
    assert judged(database, answer("no idea")) == (False, False)


def test_plain_words(database: Database):
    told = "Call 01223353888, your reference is BMUKPTG6."
    assert judged(database, answer("Try acorn guest house."), answer(told)) == (True, True)
    assert judged(database, answer("Try the Lensfield Hotel."), answer(told)) == (False, False)
    assert judged(database, answer("Try the Lensfield Hotel."), answer(f"Or acorn guest house. {told}")) == (True, True)


def test_placeholders_only(database: Database):
    judge = Judge(database, plain=False)
    told = answer("[hotel_phone] [hotel_reference]")
    assert judge.judge(GOAL, [answer("[hotel_name], not the lensfield hotel"), told]).success
    assert not judge.judge(GOAL, [answer("acorn guest house"), told]).inform
    assert not judge.judge(GOAL, [answer("[hotel_name] 01223353888"), answer("[hotel_reference]")]).success


def test_a_reference_counts_only_with_a_booking(database: Database):
    text = "[hotel_name] [hotel_phone] [hotel_reference]"
    assert judged(database, answer(text, booked=())) == (True, False)
    assert judged(database, answer(text, booked=("train",))) == (True, False)


@pytest.mark.parametrize(
    ("goal", "text", "expected"),
    [
        # A hotel whose name the user was given needs no offer.
        ({"hotel": Goal(inform={"name": "acorn guest house"}, request=())}, "yes", (True, True)),
        ({"taxi": Goal(inform={}, request=("phone", "car"))}, "[taxi_phone]", (True, True)),
        ({"taxi": Goal(inform={}, request=("phone", "car"))}, "a [taxi_car]", (True, False)),
        # A train whose number nobody asked for may be left unnamed, but not be a wrong one.
        ({"train": Goal(inform={"destination": "ely"}, request=("price",))}, "yes", (True, True)),
        ({"train": Goal(inform={"destination": "ely"}, request=("trainid",))}, "yes", (False, False)),
        ({"train": Goal(inform={"destination": "ely"}, request=("price",))}, "TR0003", (False, False)),
        ({"train": Goal(inform={"destination": "ely"}, request=("trainid",))}, "TR0001", (True, True)),
    ],
)
def test_special_domains(database: Database, goal: dict[str, Goal], text: str, expected: tuple[bool, bool]):
    (domain,) = goal
    assert judged(database, answer(text, {f"{domain}-departure": "cambridge"}), goal=goal) == expected


def test_all_domains_count(database: Database, dialogue: Dialogue):
    answers = [Answer(text=turn.system, state=turn.state, booked=turn.booked) for turn in dialogue.turns]
    judge = Judge(database)
    both = {"hotel": True, "taxi": True}
    assert judge.judge(dialogue.goal, answers) == Judgement(informed=both, told=both)
    silent = judge.judge(dialogue.goal, [*answers[:2], Answer(text="Done.", state=dialogue.turns[2].state)])
    assert silent == Judgement(informed=both, told={"hotel": True, "taxi": False})
    assert (silent.inform, silent.success) == (True, False)
    with pytest.raises(DataError, match="without a goal"):
        judge.judge({}, answers)


def test_the_domain_that_a_turn_is_about():
    states = [
        {},
        {"hotel-area": "north"},
        {"hotel-area": "north"},
        {"hotel-area": "north", "train-day": "friday", "train-leaveat": "10:00", "taxi-leaveat": "10:00"},
        {"hotel-area": "north", "train-day": "friday", "train-leaveat": "10:00", "taxi-leaveat": "10:00"},
        {"hotel-area": "south", "train-day": "monday", "train-leaveat": "10:00", "taxi-leaveat": "10:00"},
    ]
    # Of the train and the taxi the one with more slots comes, then, without a change, the other; last, hotel and train
    # change, and the train has more.
    assert active_domains(states) == ["", "hotel", "hotel", "train", "taxi", "train"]


def test_the_release_itself(real_data: Path):
    """The answers in the data, with the labels as states: about the published 0.94 and 0.91 (Nekvinda & Dušek 2021)."""
    release = read_release(real_data / "MULTIWOZ.zip")
    judge = Judge(Database.of_release(real_data / "MULTIWOZ.zip"))
    found = []
    for id in release.lists["validation"]:
        dialogue = read_dialogue(id, json.loads(json.dumps(release.dialogues[id])), split="validation")
        turns = [Answer(text=turn.template or "", state=turn.state, booked=turn.booked) for turn in dialogue.turns]
        found.append(judge.judge(dialogue.goal, turns))
    assert sum(each.inform for each in found) / len(found) == pytest.approx(0.94, abs=0.05)
    assert sum(each.success for each in found) / len(found) == pytest.approx(0.91, abs=0.06)
