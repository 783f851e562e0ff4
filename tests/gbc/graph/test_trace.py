"""Traces as JSON lines: the round trip, and lines that are none."""

import json

import pytest

from framework.core.errors import DataError
from framework.gbc.graph.trace import (
    Block,
    Step,
    Trace,
    append_trace,
    read_traces,
    trace_from_line,
    trace_to_line,
    write_traces,
)

USER = Step(
    name="user",
    node="user",
    kind="user",
    model=None,
    input_text="",
    input_ids=(),
    input_spans=(),
    blocks=(),
    controls=(),
    output="héllo 🙂\u2028 \ud83d",
    output_ids=(),
    output_spans=(),
    finish="given",
)
AGENT = Step(
    name="a@2",
    node="a",
    kind="agent",
    model="m",
    input_text="P: hi",
    input_ids=(5, 6),
    input_spans=((0, 3), (3, 5)),
    blocks=(
        Block(source="a@2", kind="prompt", text="P", chars=(0, 1), tokens=(0, 1)),
        Block(source="user", kind="message", text="hi", chars=(3, 5), tokens=(1, 2)),
    ),
    controls=("user",),
    output="yes",
    output_ids=(7, 3),
    output_spans=((0, 3), (3, 3)),
    finish="stop",
)
TRACE = Trace(
    id="7",
    task={"user": "hi", "expected": {"area": ["north", None, 1.5]}},
    steps=(USER, AGENT),
    skipped=("b",),
    outputs=("a@2",),
)


def test_the_round_trip(tmp_path):
    path = tmp_path / "runs.jsonl"
    failed = Trace(id="8", task={}, steps=(USER,), skipped=(), outputs=(), failure="tool 't' raised")
    assert write_traces(path, [TRACE, failed]) == 2
    append_trace(path, TRACE)
    assert read_traces(path) == ([TRACE, failed, TRACE], [])
    assert len(path.read_bytes().splitlines()) == 3
    assert TRACE.output == "yes"
    assert AGENT.messages == AGENT.blocks[1:]


def edited(**changes) -> str:
    return json.dumps({**json.loads(trace_to_line(TRACE)), **changes})


def step_edited(**changes) -> str:
    value = json.loads(trace_to_line(TRACE))
    value["steps"][1].update(changes)
    return json.dumps(value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        (edited(format=2), "format 2, not 1"),
        (edited(id=7), "id is '7', not str"),
        (edited(extra=1), "unknown 'extra'"),
        (edited(outputs=["z"]), "the output 'z' did not run"),
        (step_edited(kind="robot"), r"steps\[1\].kind is 'robot', not one of user, tool, agent"),
        (step_edited(input_ids=[5, True]), r"input_ids\[1\] is 'True', not int"),
        (step_edited(output_ids=[7]), "1 tokens, 2 spans"),
        (step_edited(output_spans=[[0, 3], [3, 4]]), r"span \[3, 4\] in 3"),
        (step_edited(output_spans=[[0, 3], [3]]), "not 2 values"),
        (step_edited(name="user"), "two steps 'user'"),
        (
            step_edited(blocks=[{"source": "z", "kind": "message", "text": "", "chars": [0, 0], "tokens": [0, 0]}]),
            "'z'",
        ),
        (step_edited(blocks=[{"source": "user", "kind": "message"}]), "no 'chars', no 'text', no 'tokens'"),
    ],
)
def test_lines_that_are_no_traces(line, words):
    with pytest.raises(ValueError, match=words):
        trace_from_line(line)


def test_malformed_lines_are_named_counted_and_skipped_only_on_request(tmp_path):
    path = tmp_path / "runs.jsonl"
    good = trace_to_line(TRACE).encode()
    path.write_bytes(b"\n".join([good, b"{", b"", good, b'"\xff"', good]))
    with pytest.raises(DataError, match=r"2 malformed lines, the first is line 2 \(not JSON"):
        read_traces(path)
    traces, bad = read_traces(path, skip_bad_lines=True)
    assert traces == [TRACE] * 3
    assert [line.number for line in bad] == [2, 5]


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_traces(tmp_path / "none.jsonl")
