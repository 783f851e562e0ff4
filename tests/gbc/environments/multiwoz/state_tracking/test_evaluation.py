"""Held-out dialogues: shares with intervals, files that go on, choice of dialogues."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from framework.core.errors import DataError
from framework.gbc.environments.multiwoz.dataset.database import Database
from framework.gbc.environments.multiwoz.dataset.dialogues import Dialogue
from framework.gbc.environments.multiwoz.state_tracking.evaluation import (
    SaidDialogue,
    SaidTurn,
    evaluate,
    read_said,
    scores,
    share_of_turns,
    wilson,
)
from framework.gbc.environments.multiwoz.success import Judge
from framework.gbc.graph.spec import load_graph
from framework.gbc.language_models.interface import Reply, Request
from tests.gbc.environments.multiwoz.conftest import database, dialogue  # noqa: F401
from tests.gbc.environments.multiwoz.state_tracking.test_turns import GRAPH, Oracle, make_dialogue


def test_the_interval_of_wilson():
    # By hand: z = 1.96, 5 of 10: middle 0.5, half 1.96 sqrt(0.025 + 0.0096) / 1.384.
    found = wilson(5, 10)
    assert (found.low, found.high) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert (wilson(0, 10).low, wilson(10, 10).high) == pytest.approx((0, 1))
    assert wilson(0, 10).high == pytest.approx(0.2775, abs=1e-4)


def test_turns_of_a_dialogue_are_drawn_together():
    found = share_of_turns([[True, True, False], [False]])
    assert (found.share, found.num) == (0.5, 4)
    # One dialogue has all: only two shares, and those of mixed draws.
    assert (found.low, found.high) == (0, pytest.approx(2 / 3))
    same = share_of_turns([[True, False]] * 5)
    assert (same.low, same.high) == (0.5, 0.5)


class Counting(Oracle):
    """Counts what it is asked."""

    count = 0

    def reply(self, requests: Sequence[Request]) -> list[Reply]:
        self.count += len(requests)
        return super().reply(requests)


def test_an_evaluation_that_was_killed_goes_on(tmp_path: Path):
    graph, out, dialogues = load_graph(GRAPH), tmp_path / "said.jsonl", [make_dialogue(f"{i}.json") for i in range(3)]
    model = Counting()
    first = evaluate(graph, {"micro": model}, dialogues, out, at_once=1)
    assert next(first).id == "0.json"
    next(first)
    asked = model.count
    # Killed within a line.
    whole = out.read_bytes()
    out.write_bytes(whole[:-20])
    assert [each.id for each in evaluate(graph, {"micro": model}, dialogues, out, at_once=2)] == ["1.json", "2.json"]
    assert model.count == 2 * asked
    assert [each.id for each in read_said(out)] == ["0.json", "1.json", "2.json"]
    assert out.read_bytes().startswith(whole)
    found, slots = scores(dialogues, read_said(out), None)
    assert found["joint_goal_accuracy"].share == 1
    assert found.keys() == {"joint_goal_accuracy"}
    assert slots["slot_f1"] == 1
    out.write_text("{}\n")
    with pytest.raises(DataError, match="delete it, and measure anew"):
        read_said(out)


def test_a_short_dialogue_is_kept_before_the_long_ones_of_its_group_end(tmp_path: Path):
    long = make_dialogue("long.json")
    short = replace(make_dialogue("short.json"), turns=long.turns[:1])
    model, out = Counting(), tmp_path / "said.jsonl"
    running = evaluate(load_graph(GRAPH), {"micro": model}, [long, short], out, at_once=2)
    assert next(running).id == "short.json"
    assert [each.id for each in read_said(out)] == ["short.json"]
    asked = model.count
    assert [each.id for each in running] == ["long.json"]
    assert model.count > asked
    said = read_said(out)
    assert scores([long, short], said, None) == scores([long, short], said[::-1], None)


def test_inform_and_success_of_what_was_said(dialogue: Dialogue, database: Database):  # noqa: F811
    turns = tuple(SaidTurn(state=turn.state, answer=turn.system, failure=None) for turn in dialogue.turns)
    said = SaidDialogue(id=dialogue.id, turns=turns)
    found, _ = scores([dialogue], [said], Judge(database))
    assert {name: each.share for name, each in found.items()}["inform"] == 1
    mute = replace(said, turns=tuple(replace(turn, answer="") for turn in turns))
    assert scores([dialogue], [mute], Judge(database))[0]["inform"].share == 0
    with pytest.raises(DataError, match="no dialogue was measured"):
        scores([dialogue], [], None)
