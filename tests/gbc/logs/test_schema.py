"""The form of foreign logs: defaults, whole round trips, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from framework.core.errors import DataError
from framework.gbc.logs.schema import Log, Message, Mistake, ToolCall, log_from_line, log_to_line, read_logs, write_logs

FULL = Log(
    id="7",
    task="Book a room.",
    messages=(
        Message(agent="guest", role="user", content="Book a room."),
        Message(agent="clerk", content="", tool_calls=(ToolCall(id="a", name="rooms", arguments="{}"),)),
        Message(agent="rooms", role="tool", content="none free", call="a"),
        Message(agent="clerk", content="Booked.", reads=(0,)),
    ),
    prompts={"clerk": "You book."},
    outputs=(3,),
    answer="Booked.",
    expected="No room.",
    correct=False,
    mistake=Mistake(agent="clerk", step=3, reason="did not read"),
)


def line(**changes: Any) -> str:
    return json.dumps({"id": "1", "messages": [{"agent": "a", "content": "hi"}], **changes})


def test_a_log_comes_back_whole(tmp_path):
    assert log_from_line(log_to_line(FULL)) == FULL
    assert write_logs(tmp_path / "logs.jsonl", [FULL]) == 1
    assert read_logs(tmp_path / "logs.jsonl") == ([FULL], [])


def test_what_has_a_default_may_be_left_out():
    log = log_from_line(line(mistake={"agent": "a"}))
    assert log.messages == (Message(agent="a", role="agent", content="hi"),)
    assert log.mistake == Mistake(agent="a", step=None, reason="")
    assert log.output_messages == (0,)
    assert log.failed


def test_a_call_is_part_of_what_was_said():
    assert FULL.messages[1].text == "rooms({})"
    both = Message(
        agent="clerk", content="Let me see.", tool_calls=(ToolCall(name="f", arguments="1"), ToolCall(name="g"))
    )
    assert both.text == "Let me see.\nf(1)\ng()"


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"correct": True, "answer": "a", "expected": "b"}, False),
        ({"answer": "a ", "expected": "a"}, False),
        ({"answer": "a", "expected": "b"}, True),
        ({"answer": "a"}, True),
        ({"correct": False, "answer": "a", "expected": "a"}, True),
    ],
)
def test_whether_a_run_failed(changes, failed):
    assert log_from_line(line(**changes)).failed is failed


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        (json.dumps({"id": "1"}), "no 'messages'"),
        (line(cost=3), "unknown 'cost'"),
        (line(messages=[{"agent": "a"}]), r"messages\[0\]: no 'content'"),
        (line(messages=[{"agent": "a", "content": "x", "role": "boss"}]), r"messages\[0\].role is 'boss'"),
        (line(messages="hi"), "messages is 'hi', not a list"),
        (line(messages=[{"agent": "a", "content": 3}]), r"messages\[0\].content is '3', not str"),
        (line(messages=[]), "no agent's message"),
        (line(messages=[{"agent": "a", "content": "x", "reads": [0]}]), "message 0 reads 0"),
        (line(messages=[{"agent": "a", "content": "x", "call": "z"}]), "call 'z', which nobody made"),
        (line(outputs=[1]), "the output is message 1 of 1"),
    ],
)
def test_what_is_no_log_says_why(tmp_path, text, problem):
    with pytest.raises((ValueError, DataError), match=problem):
        log_from_line(text)
    (tmp_path / "logs.jsonl").write_text(f"{line()}\n\n{text}\n")
    with pytest.raises(DataError, match="1 malformed lines, the first is line 3"):
        read_logs(tmp_path / "logs.jsonl")
    logs, bad = read_logs(tmp_path / "logs.jsonl", skip_bad_lines=True)
    assert [log.id for log in logs] == ["1"]
    assert [each.number for each in bad] == [3]


def test_two_logs_of_one_id_and_a_missing_file(tmp_path):
    (tmp_path / "logs.jsonl").write_text(f"{line()}\n{line()}\n")
    with pytest.raises(DataError, match=r"line 2 \(a second log '1'"):
        read_logs(tmp_path / "logs.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        read_logs(tmp_path / "none.jsonl")


def test_the_documented_example_is_one():
    page = (Path(__file__).parents[3] / "docs" / "traces.md").read_text(encoding="utf-8")
    example = page.partition("```json\n")[2].partition("```")[0]
    log = log_from_line(example)
    assert log.failed
    assert log.mistake is not None
    assert log.messages[log.mistake.step or 0].agent == log.mistake.agent


def test_lines_as_other_programs_write_them(tmp_path):
    path = tmp_path / "logs.jsonl"
    line = {"id": "1", "messages": [{"agent": "a", "content": "né"}]}
    whole = json.dumps(line, ensure_ascii=False).encode()
    half = json.dumps({**line, "id": "2", "task": "x \ud83d"}).encode()
    path.write_bytes(
        b"\xef\xbb\xbf" + whole + b"\r\n\r\n" + half + b"\n" + whole.decode().encode("latin-1") + b"\n" + whole
    )
    logs, bad = read_logs(path, skip_bad_lines=True)
    assert [(log.id, log.messages[0].content) for log in logs] == [("1", "né")]
    problems = ["half of a character (\\ud83d) at place 2 of task", "not UTF-8 (byte 0xe9)", "a second log '1'"]
    assert [(line.number, line.problem[: len(words)]) for line, words in zip(bad, problems, strict=True)] == [
        (number, words) for number, words in zip((3, 4, 5), problems, strict=True)
    ]
    with pytest.raises(DataError, match=r"logs.jsonl: 3 malformed lines, the first is line 3 \(half of a character"):
        read_logs(path)
