"""OpenAI-style message lists: names, prompts, parallel calls, parts, and what is refused."""

import json

import pytest

from framework.core.errors import DataError
from framework.gbc.logs.forms.openai import Told, log_of_messages, logs_of_openai
from framework.gbc.logs.forms.reading import read_form
from framework.gbc.logs.schema import Mistake, ToolCall


def call(id: str, name: str, arguments: object = "{}") -> dict:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


SINGLE = [
    {"role": "system", "content": "You help."},
    {"role": "user", "content": "Weather in Rome and Oslo?"},
    {"role": "assistant", "content": None, "tool_calls": [call("1", "weather", '{"c": "Rome"}'), call("2", "sea")]},
    {"role": "tool", "tool_call_id": "2", "content": "cold"},
    {"role": "tool", "tool_call_id": "1", "content": "hot"},
    {"role": "assistant", "content": "Hot and cold."},
]


def test_parallel_calls_and_their_answers():
    log = log_of_messages(SINGLE, id="x")
    assert log.task == "Weather in Rome and Oslo?"
    assert log.prompts == {"assistant": "You help."}
    assert [(each.agent, each.role, each.text, each.call) for each in log.messages] == [
        ("user", "user", "Weather in Rome and Oslo?", None),
        ("assistant", "agent", 'weather({"c": "Rome"})\nsea({})', None),
        ("sea", "tool", "cold", "2"),
        ("weather", "tool", "hot", "1"),
        ("assistant", "agent", "Hot and cold.", None),
    ]


def test_agents_by_name_with_prompts_of_their_own():
    messages = [
        {"role": "system", "content": "For all."},
        {"role": "developer", "name": "coder", "content": "Write code."},
        {"role": "user", "content": [{"type": "text", "text": "See:"}, {"type": "image_url", "image_url": {}}]},
        {"role": "assistant", "name": "coder", "content": "x = 1"},
        {"role": "user", "name": "critic", "content": "Bad."},
        {"role": "assistant", "name": "critic", "content": "Still bad."},
        {"role": "user", "name": "judge", "content": "End."},
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "name": "coder", "content": "x = 2", "refusal": None},
    ]
    log = log_of_messages(messages, id="x", agents=["judge"])
    assert log.prompts == {"coder": "For all.\n\nWrite code.", "critic": "For all.", "judge": "For all."}
    assert [(each.agent, each.role) for each in log.messages] == [
        ("user", "user"),
        ("coder", "agent"),
        ("critic", "agent"),
        ("critic", "agent"),
        ("judge", "agent"),
        ("system", "user"),
        ("coder", "agent"),
    ]
    assert log.messages[0].content == "See:\n[image_url]"


def test_older_calls_arguments_as_objects_and_refusals():
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": {"a": 1}}},
        {"role": "function", "name": "f", "content": "2"},
        {"role": "assistant", "content": None, "refusal": "I cannot."},
    ]
    log = log_of_messages(messages, id="x")
    assert log.messages[1].tool_calls == (ToolCall(id="f", name="f", arguments='{"a": 1}'),)
    assert (log.messages[2].agent, log.messages[2].role, log.messages[2].call) == ("f", "tool", "f")
    assert log.messages[3].content == "I cannot."


def test_lines_and_their_labels(tmp_path):
    labelled = {
        "id": 12,
        "model": "any",
        "messages": SINGLE,
        "expected": "Warm.",
        "mistake": {"agent": "assistant", "step": 2},
    }
    (tmp_path / "runs.jsonl").write_text(f"{json.dumps(SINGLE)}\n{json.dumps(labelled)}\n")
    logs = read_form(tmp_path / "runs.jsonl").logs
    assert [log.id for log in logs] == ["1", "12"]
    # The label counts the list, the form has no system messages.
    assert logs[1].mistake == Mistake(agent="assistant", step=1)
    assert logs[1].expected == "Warm."


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (3, "neither a list of messages nor an object"),
        ({"messages": [3]}, "not a list of objects"),
        ([{"role": "boss", "content": ""}], r"messages\[0\]: role 'boss'"),
        ([{"role": "tool", "tool_call_id": "9", "content": ""}], "tool_call_id '9' is not a call before it"),
        ([{"role": "assistant", "tool_calls": [{"id": "1"}]}], "no function with a name"),
        ([{"role": "assistant", "content": 7}], "content is '7'"),
        ({"messages": SINGLE, "mistake": {"who": "x"}}, "mistake: unknown 'who'"),
        ({"messages": SINGLE, "mistake": {"step": 0}}, "the mistake is at step 0"),
        ({"messages": SINGLE, "expected": 4}, "expected is '4', not str"),
        ([{"role": "user", "content": "hi"}], "no agent's message"),
    ],
)
def test_what_is_no_message_list_says_why(tmp_path, value, problem):
    (tmp_path / "runs.jsonl").write_text(json.dumps(value))
    with pytest.raises(DataError, match=problem):
        read_form(tmp_path / "runs.jsonl", "openai")


@pytest.mark.parametrize(
    "written",
    [
        {"id": "1", "function": {"name": "a", "parameters": {"x": 1}}},
        {"id": "1", "name": "a", "args": {"x": 1}, "type": "tool_call"},
        {"id": "1", "type": "function", "function": {"name": "a", "arguments": {"x": 1}, "description": "…"}},
    ],
)
def test_arguments_under_other_names_are_kept(written):
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "", "tool_calls": [written]}]
    (call,) = log_of_messages(messages, id="x").messages[1].tool_calls
    assert call == ToolCall(id="1", name="a", arguments='{"x": 1}')


def test_parts_of_anthropic_are_calls_and_answers():
    use = {"type": "tool_use", "id": "1", "name": "a", "input": {"x": 1}}
    answer = {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "hot"}]}
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "…"}, {"type": "text", "text": "Hm"}, use]},
        {"role": "user", "content": [answer, {"type": "text", "text": "And?"}]},
        {"role": "assistant", "content": "Hot."},
    ]
    log = log_of_messages(messages, id="x", told=Told(mistake=Mistake(step=3)))
    assert [(each.agent, each.role, each.text, each.call) for each in log.messages] == [
        ("user", "user", "?", None),
        ("assistant", "agent", '[thinking]\nHm\na({"x": 1})', None),
        ("a", "tool", "hot", "1"),
        ("user", "user", "And?", None),
        ("assistant", "agent", "Hot.", None),
    ]
    assert log.mistake == Mistake(step=4)


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ({"tool_calls": [{"id": "1", "function": {"name": "a", "x": 1}}]}, "does not say what its arguments are"),
        ({"tool_calls": [{"function": {"name": "a", "arguments": "1", "parameters": "2"}}]}, "does not say what"),
        ({"content": [{"type": "widget", "value": 3}]}, "a part of the type 'widget', which is not understood"),
    ],
)
def test_what_would_be_lost_is_refused(message, problem):
    with pytest.raises(ValueError, match=rf"messages\[1\]: .*{problem}"):
        log_of_messages([{"role": "user", "content": "?"}, {"role": "assistant", **message}], id="x")


def test_users_of_whom_nobody_knows_what_they_are_are_refused():
    messages = [
        {"role": "user", "name": "boss", "content": "Sort 3 1 2."},
        {"role": "user", "name": "coder", "content": "1 2 3"},
    ]
    with pytest.raises(
        ValueError, match="boss, coder speak as users: are they agents\\? Name those that are with --agents"
    ):
        logs_of_openai(messages, "x")
    (log,) = logs_of_openai(messages, "x", ["coder"])
    assert [(each.agent, each.role) for each in log.messages] == [("boss", "user"), ("coder", "agent")]
    # One human with a name beside an assistant is a human.
    (log,) = logs_of_openai([messages[0], {"role": "assistant", "content": "1 2 3"}], "x")
    assert [each.role for each in log.messages] == ["user", "agent"]


def test_the_word_that_ends_a_chat_is_not_its_output():
    messages = [*SINGLE, {"role": "assistant", "content": "TERMINATE"}]
    assert log_of_messages(messages, id="x").output_messages == (4,)
