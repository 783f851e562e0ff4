"""Tools that are run again: what corrected inputs would have given is the inputs' credit, the rest the code's."""

from collections.abc import Mapping

import pytest

from framework.gbc.attribution.tool_replay import tool_replay_connections
from framework.gbc.graph.spec import Tool
from framework.gbc.graph.trace import Block, Step, Trace

NAMES = {"north": "acorn", "south": "birch"}


def find(texts: Mapping[str, str]) -> str:
    return "name " + NAMES[texts["form"]]


def step(name: str, output: str, *reads: str) -> Step:
    blocks = tuple(Block(source=read, kind="message", text="", chars=(0, 0), tokens=(0, 0)) for read in reads)
    return Step(
        name=name,
        node=name,
        kind="tool" if reads else "user",
        model=None,
        input_text="",
        input_ids=(),
        input_spans=(),
        blocks=blocks,
        controls=(),
        output=output,
        output_ids=(),
        output_spans=(),
        finish="given",
    )


STEPS = (step("form", "south"), step("other", "x"), step("find", "name birch", "form", "other"))
TRACE = Trace(id="0", task={}, steps=STEPS, skipped=(), outputs=("find",))
TOOL = Tool(name="find", reads=("form", "other"), function=find, estimator="tool_replay")
WRONG = {(5, 10, "acorn"): 0.5}


@pytest.mark.parametrize(
    ("targets", "shares"),
    [
        ({"form": {(0, 5, "north"): 1.0}}, {"form": 1.0, "other": 0.0, "find": 0.0}),
        # Of two targets for one word, the stronger is tried.
        ({"form": {(0, 5, "north"): 1.0, (0, 5, "east"): 0.1}}, {"form": 1.0, "other": 0.0, "find": 0.0}),
        ({}, {"form": 0.0, "other": 0.0, "find": 1.0}),
        # What is wrong besides may be the cause: 1 against 0.5 of the tool.
        ({"other": {(0, 1, "y"): 1.0}}, {"form": 0.0, "other": 2 / 3, "find": 1 / 3}),
        # The tool raises.
        ({"form": {(0, 5, "west"): 1.0}}, {"form": 2 / 3, "other": 0.0, "find": 1 / 3}),
    ],
)
def test_shares_by_hand(targets: dict, shares: dict[str, float]):
    found = tool_replay_connections(TRACE, STEPS[2], TOOL, {**targets, "find": WRONG})
    assert {each.source: each.share.item() for each in found} == pytest.approx(shares)
    assert [each.kind for each in found] == ["message", "message", "code"]
    form = found[0]
    if form.share.item():
        # Its credit goes to the word that was wrong.
        assert form.parts is not None
        assert form.tokens is not None
        assert form.tokens.sum().item() == pytest.approx(1.0)
        assert set(form.parts) == {(0, 5)}
