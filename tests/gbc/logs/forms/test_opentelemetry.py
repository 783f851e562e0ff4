"""OTLP's JSON: the conventions' attributes, their older events, and other libraries' indexed attributes."""

import json

import pytest

from framework.gbc.logs.forms.opentelemetry import logs_of_opentelemetry, put_together
from framework.gbc.logs.forms.reading import form_of, read_form

CALL = {"type": "tool_call", "id": "c1", "name": "weather", "arguments": {"city": "Rome"}}
ASKED = {"role": "user", "parts": [{"type": "text", "content": "Weather?"}]}
CALLED = {"role": "assistant", "parts": [{"type": "reasoning", "content": "Hm"}, CALL], "finish_reason": "tool_call"}
ANSWERED = {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "hot"}]}
WRITTEN = {"role": "assistant", "parts": [{"type": "text", "content": "Hot."}], "finish_reason": "stop"}


def any_value(value: object) -> dict:
    if isinstance(value, list):
        return {"arrayValue": {"values": [any_value(each) for each in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": attributes(value)}}
    return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}


def attributes(values: dict) -> list[dict]:
    return [{"key": key, "value": any_value(each)} for key, each in values.items()]


def span(id: str, parent: str, end: int, values: dict, name: str = "chat m", events: list[dict] | None = None) -> dict:
    return {
        "traceId": "t1",
        "spanId": id,
        "parentSpanId": parent,
        "name": name,
        "kind": 3,
        "startTimeUnixNano": "1",
        "endTimeUnixNano": str(end),
        "attributes": attributes(values),
        "events": events or [],
        "status": {},
    }


def otlp(*spans: dict) -> dict:
    return {"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [{"scope": {}, "spans": list(spans)}]}]}


def chat(given: list, said: dict, prompt: str = "", *, written: bool = True) -> dict:
    found: dict[str, object] = {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 3}
    if prompt:
        found["gen_ai.system_instructions"] = [{"type": "text", "content": prompt}]
    found |= {"gen_ai.input.messages": given, "gen_ai.output.messages": [said]}
    # Most exporters write the messages as JSON in a text.
    return {key: json.dumps(each) if written and isinstance(each, list) else each for key, each in found.items()}


def agent(name: str) -> dict:
    return {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": name}


def said(log) -> list[tuple]:
    return [(each.agent, each.role, each.text, each.reads) for each in log.messages]


EXPECTED = [
    ("user", "user", "Weather?", None),
    ("researcher", "agent", '[reasoning]\nweather({"city": "Rome"})', (0,)),
    ("weather", "tool", "hot", None),
    ("writer", "agent", "Hot.", (0, 1, 2)),
]


@pytest.mark.parametrize("written", [True, False])
def test_the_conventions_attributes_over_several_lines(tmp_path, written):
    lines = [
        otlp(span("2", "1", 20, chat([ASKED], CALLED, "Look.", written=written))),
        otlp(
            # It repeats what the calls in it say.
            span("1", "", 30, agent("researcher") | chat([ASKED], CALLED, written=written), "invoke_agent researcher"),
            span("4", "3", 50, chat([ASKED, CALLED, ANSWERED], WRITTEN, "Write.", written=written)),
            span("3", "", 60, agent("writer"), "invoke_agent writer"),
        ),
    ]
    (tmp_path / "spans.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    found = read_form(tmp_path / "spans.jsonl")
    assert (found.form, [log.id for log in found.logs]) == ("opentelemetry", ["t1"])
    assert said(found.logs[0]) == EXPECTED
    assert found.logs[0].prompts == {"researcher": "Look.", "writer": "Write."}


def logs_of(*values: dict) -> list:
    assert form_of(values[0]) == "opentelemetry"
    return [log for trace in put_together(values) for log in logs_of_opentelemetry(trace, "x")]


def test_messages_on_events_in_a_file_of_log_records():
    record = {
        "traceId": "t1",
        "spanId": "2",
        "eventName": "gen_ai.client.inference.operation.details",
        "attributes": attributes(chat([ASKED], WRITTEN, written=False)),
    }
    logs = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}
    (log,) = logs_of(otlp(span("2", "", 9, {"gen_ai.agent.name": "writer"})), logs)
    assert said(log) == [("user", "user", "Weather?", None), ("writer", "agent", "Hot.", (0,))]


def test_older_events():
    calls = [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]
    events = [
        ("gen_ai.system.message", {"content": "Look."}),
        ("gen_ai.user.message", {"content": "Weather?"}),
        ("gen_ai.assistant.message", {"gen_ai.event.content": json.dumps({"tool_calls": calls})}),
        ("gen_ai.tool.message", {"id": "c1", "content": "hot"}),
        ("gen_ai.choice", {"index": 0, "message": json.dumps({"content": "Hot."}), "finish_reason": "stop"}),
    ]
    written = [{"timeUnixNano": "1", "name": name, "attributes": attributes(each)} for name, each in events]
    (log,) = logs_of(otlp(span("2", "", 9, {}, events=written)))
    assert [(who, text) for who, _, text, _ in said(log)] == [
        ("user", "Weather?"),
        ("assistant", "weather({})"),
        ("weather", "hot"),
        ("assistant", "Hot."),
    ]
    assert log.prompts == {"assistant": "Look."}


@pytest.mark.parametrize(
    ("given", "output", "call"),
    [
        ("gen_ai.prompt.{}.", "gen_ai.completion.0.", "tool_calls.0."),
        ("llm.input_messages.{}.message.", "llm.output_messages.0.message.", "tool_calls.0.tool_call.function."),
    ],
)
def test_indexed_attributes(given, output, call):
    called = given.format(1) + call
    id = called.replace("function.", "") + "id"
    values = {
        f"{given.format(0)}role": "user",
        f"{given.format(0)}content": "Weather?",
        f"{given.format(1)}role": "assistant",
        f"{called}name": "weather",
        f"{called}arguments": "{}",
        id: "c1",
        f"{given.format(2)}role": "tool",
        f"{given.format(2)}content": "hot",
        f"{given.format(2)}tool_call_id": "c1",
        f"{output}role": "assistant",
        f"{output}content": "Hot.",
    }
    around = span("1", "", 9, {"openinference.span.kind": "AGENT"}, "writer")
    (log,) = logs_of(otlp(span("2", "1", 5, values), around))
    assert said(log)[1:] == [
        ("writer", "agent", "weather({})", (0,)),
        ("weather", "tool", "hot", None),
        ("writer", "agent", "Hot.", (0, 1, 2)),
    ]


def test_spans_without_content_say_what_to_switch_on():
    with pytest.raises(ValueError, match="none of its 1 spans has messages: let the instrumentation capture content"):
        logs_of(otlp(span("1", "", 1, {"gen_ai.operation.name": "chat"})))
    unknown = {"role": "assistant", "parts": [{"type": "hologram"}]}
    with pytest.raises(ValueError, match="a part of the type 'hologram'"):
        logs_of(otlp(span("1", "", 1, chat([ASKED], unknown))))


def test_spans_around_each_other_end():
    said = {"gen_ai.output.messages": json.dumps([WRITTEN])}
    around = [span("s1", "s2", 2, said), span("s2", "s1", 3, {"gen_ai.agent.name": "writer"})]
    (log,) = logs_of_opentelemetry({"id": "t1", "spans": around}, "x")
    assert [each.agent for each in log.messages] == ["writer"]
    nameless = {key: value for key, value in span("", "", 2, said).items() if key != "spanId"} | {"parentSpanId": None}
    (log,) = logs_of_opentelemetry({"id": "t1", "spans": [nameless]}, "x")
    assert [each.agent for each in log.messages] == ["assistant"]
