"""OpenAI's items, responses and traces of the Agents SDK."""

import json

import pytest

from framework.gbc.logs.forms.reading import form_of, read_form
from framework.gbc.logs.forms.responses import logs_of_agents_trace, logs_of_responses

CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": '{"c": "Rome"}'}
HANDOFF = {"type": "function_call", "call_id": "h1", "name": "transfer_to_writer", "arguments": "{}"}
REASONING = {"type": "reasoning", "id": "rs_1", "summary": []}
ITEMS = [
    {"role": "user", "content": "Weather?"},
    HANDOFF,
    {"type": "function_call_output", "call_id": "h1", "output": '{"assistant": "writer"}'},
    REASONING,
    CALL,
    {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "hot"}]},
    {
        "type": "message",
        "id": "m1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "Hot.", "annotations": []}],
    },
]
SAID = [
    ("user", "user", "Weather?"),
    ("assistant", "agent", "transfer_to_writer({})"),
    ("transfer_to_writer", "tool", '{"assistant": "writer"}'),
    ("writer", "agent", '[reasoning]\nweather({"c": "Rome"})'),
    ("weather", "tool", "hot"),
    ("writer", "agent", "Hot."),
]


def said(log) -> list[tuple[str, str, str]]:
    return [(each.agent, each.role, each.text) for each in log.messages]


def test_handoffs_name_who_speaks():
    assert form_of(ITEMS) == "responses"
    (log,) = logs_of_responses(ITEMS, "x")
    assert said(log) == SAID
    (log,) = logs_of_responses({"items": ITEMS, "mistake": {"step": 4}}, "x")
    assert log.mistake is not None
    # The call joins the thought before it.
    assert log.mistake.step == 3


def test_items_with_their_agents():
    named = [{"agent": "triage", "type": "tool_call_item", "raw_item": HANDOFF}]
    named += [{"agent": {"name": "writer"}, "type": "message_output_item", "raw_item": ITEMS[-1]}]
    (log,) = logs_of_responses({"input": "Weather?", "new_items": named}, "x")
    assert [each.agent for each in log.messages] == ["user", "triage", "writer"]


def response(id: str, before: str | None, given: object, output: list[dict]) -> dict:
    return {
        "id": id,
        "object": "response",
        "instructions": "Be brief.",
        "previous_response_id": before,
        "input": given,
        "output": output,
    }


def test_responses_that_go_on_from_each_other(tmp_path):
    lines = [
        response("r1", None, "Weather?", [REASONING, CALL]),
        response("r9", None, "Hi", [ITEMS[-1]]),
        response("r2", "r1", [ITEMS[5]], [ITEMS[-1]]),
    ]
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    found = read_form(tmp_path / "runs.jsonl")
    assert (found.form, [log.id for log in found.logs]) == ("responses", ["r1", "r9"])
    assert [text for _, _, text in said(found.logs[0])] == [text for _, _, text in (SAID[0], *SAID[3:])]
    assert found.logs[0].prompts == {"assistant": "Be brief."}


def test_tools_of_the_provider_answer_in_their_call():
    search = {
        "type": "file_search_call",
        "id": "fs_1",
        "status": "completed",
        "queries": ["Rome"],
        "results": [{"text": "hot"}],
    }
    web = {
        "type": "web_search_call",
        "id": "ws_1",
        "status": "completed",
        "action": {"type": "search", "query": "Rome"},
    }
    (log,) = logs_of_responses([ITEMS[0], search, web, ITEMS[-1]], "x")
    assert said(log)[1:] == [
        ("assistant", "agent", 'file_search({"queries": ["Rome"]})'),
        ("file_search", "tool", '[{"text": "hot"}]'),
        ("assistant", "agent", 'web_search({"action": {"type": "search", "query": "Rome"}})'),
        ("assistant", "agent", "Hot."),
    ]


def test_what_is_not_understood():
    with pytest.raises(ValueError, match="item 1: type 'item_reference'"):
        logs_of_responses([ITEMS[0], {"type": "item_reference", "id": "m1"}], "x")


def span(id: str, parent: str | None, end: int, data: dict, trace: str = "trace_1") -> dict:
    return {
        "object": "trace.span",
        "id": id,
        "trace_id": trace,
        "parent_id": parent,
        "started_at": "2025-01-01T00:00:00+00:00",
        "ended_at": f"2025-01-01T00:00:{end:02d}+00:00",
        "span_data": data,
        "error": None,
    }


def test_a_trace_tells_what_each_agent_read(tmp_path):
    asked = {"role": "user", "content": "Weather?"}
    written = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    called = {"role": "assistant", "content": None, "tool_calls": [written]}
    answered = {"role": "tool", "tool_call_id": "c1", "content": "hot"}

    def generation(prompt: str, given: list[dict], output: dict) -> dict:
        return {"type": "generation", "input": [{"role": "system", "content": prompt}, *given], "output": [output]}

    spans = [
        {"object": "trace", "id": "trace_1", "workflow_name": "Agent workflow", "group_id": None, "metadata": None},
        span("a2", None, 9, {"type": "agent", "name": "writer", "handoffs": [], "tools": []}),
        span("g2", "a2", 8, generation("Write.", [asked, called, answered], {"role": "assistant", "content": "Hot."})),
        span("g1", "a1", 3, generation("Look.", [asked], called)),
        span("f1", "a1", 5, {"type": "function", "name": "weather", "input": "{}", "output": "hot"}),
        span("a1", None, 6, {"type": "agent", "name": "researcher", "handoffs": ["writer"], "tools": ["weather"]}),
        span("g3", None, 1, generation("Hi.", [asked], {"role": "assistant", "content": "Ho."}), trace="trace_2"),
    ]
    (tmp_path / "spans.jsonl").write_text("".join(json.dumps(each) + "\n" for each in spans))
    found = read_form(tmp_path / "spans.jsonl")
    assert (found.form, [log.id for log in found.logs]) == ("openai_agents", ["trace_1", "trace_2"])
    log = found.logs[0]
    assert [(each.agent, each.role, each.text, each.reads) for each in log.messages] == [
        ("user", "user", "Weather?", None),
        ("researcher", "agent", "weather({})", (0,)),
        ("weather", "tool", "hot", None),
        ("writer", "agent", "Hot.", (0, 1, 2)),
    ]
    assert log.prompts == {"researcher": "Look.", "writer": "Write."}


def test_a_trace_without_content_says_why():
    spans = [span("r", None, 1, {"type": "response", "response_id": "resp_1", "usage": None})]
    with pytest.raises(ValueError, match="no span has messages: the SDK exports none for the Responses API"):
        logs_of_agents_trace({"id": "t", "spans": spans}, "x")


def test_a_trace_keeps_what_a_response_says_before_its_last_message():
    search = {"type": "web_search_call", "id": "w1", "action": {"query": "Rome"}, "results": [{"text": "hot"}]}
    data = {"type": "response", "input": "Weather?", "response": {"output": [search, ITEMS[-1]]}}
    (log,) = logs_of_agents_trace({"id": "t", "spans": [span("r", None, 1, data)]}, "x")
    assert [(each.agent, each.role, each.reads) for each in log.messages] == [
        ("user", "user", None),
        ("assistant", "agent", (0,)),
        ("web_search", "tool", None),
        ("assistant", "agent", (0, 1, 2)),
    ]
    assert '"query": "Rome"' in log.messages[1].text
    assert log.messages[3].text == "Hot."


def test_spans_without_ids_are_not_around_themselves():
    data = {"type": "generation", "input": [{"role": "user", "content": "a"}], "output": [{"content": "b"}]}
    nameless = {key: value for key, value in span("", None, 1, data).items() if key != "id"}
    (log,) = logs_of_agents_trace({"id": "t", "spans": [nameless]}, "x")
    assert [each.agent for each in log.messages] == ["user", "assistant"]
