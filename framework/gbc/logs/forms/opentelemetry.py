"""OpenTelemetry's spans of generative AI, as OTLP writes them in JSON: a collector's file, or an exporter's.

Read are the conventions' attributes (`gen_ai.input.messages`, `gen_ai.output.messages`, `gen_ai.system_instructions`;
on spans, and on events beside them), their older events (`gen_ai.user.message`, `gen_ai.choice`, ...), and the indexed
attributes of OpenLLMetry (`gen_ai.prompt.0.content`) and OpenInference (`llm.input_messages.0.message.content`). An
agent is the nearest span around a call that names one. A trace is a log.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from framework.core.text_files import parse_json
from framework.gbc.logs.forms.model_calls import ModelCall, log_of_calls, outwards
from framework.gbc.logs.forms.openai import listed, objects_of, without_secrets
from framework.gbc.logs.schema import JsonObject, Log, json_object

_MEDIA = {"blob", "file", "uri"}
_AGENT_KINDS = {"agent", "AGENT"}


@dataclass(kw_only=True)
class _Span:
    """A span.

    Attributes:
        id: of the span.
        parent: id of the span around it.
        name: what it does.
        end: in nanoseconds.
        attributes: of the span, and of its events that describe a whole call.
        events: names and attributes of the others, in their order.
    """

    id: str
    parent: str
    name: str
    end: int
    attributes: dict[str, object]
    events: list[tuple[str, dict[str, object]]] = field(default_factory=list[tuple[str, dict[str, object]]])


def is_opentelemetry(value: object) -> bool:
    """Whether a value is OTLP's JSON of spans or of log records."""
    fields = json_object(value) or {}
    return any(objects_of(fields.get(key)) is not None for key in ("resourceSpans", "resourceLogs", "resource_spans"))


def put_together(values: Sequence[object]) -> list[object]:
    """Spans by their trace, and the log records by their span: a trace may lie over several lines."""
    traces: dict[str, dict[str, list[object]]] = {}
    for value in values:
        fields = json_object(value) or {}
        for kind, record in (*_records(fields, "Spans", "spans"), *_records(fields, "Logs", "logRecords")):
            trace = traces.setdefault(
                str(record.get("traceId", record.get("trace_id"))), {"spans": [], "logRecords": []}
            )
            trace[kind].append(record)
    return [{"id": id, **parts} for id, parts in traces.items() if parts["spans"]]


def logs_of_opentelemetry(value: object, id: str) -> list[Log]:
    """The log of a trace.

    Args:
        value: an object with `id`, `spans` and `logRecords`.
        id: where the value has none.

    Raises:
        ValueError: no span has messages, or what is not understood.
    """
    fields = json_object(value) or {}
    spans = {span.id: span for span in map(_span, objects_of(fields.get("spans")) or ())}
    for record in objects_of(fields.get("logRecords")) or ():
        span = spans.get(str(record.get("spanId", record.get("span_id"))))
        if span is not None:
            _add_event(span, record, str(record.get("eventName", "")))
    exchanges = {span.id: _exchange(span) for span in spans.values()}
    # An agent's span may repeat what the calls in it say.
    around = {
        each.id for id, (_, said) in exchanges.items() if said for each in _outwards(spans[id], spans) if each.id != id
    }
    calls = [
        ModelCall(agent=_agent_of(span, spans), given=given, said=said[0])
        for span in sorted(spans.values(), key=lambda span: span.end)
        for given, said in [exchanges[span.id]]
        if said and span.id not in around
    ]
    if not calls:
        raise ValueError(
            f"none of its {len(spans)} spans has messages: let the instrumentation capture content "
            "(OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT)"
        )
    return [log_of_calls(calls, id=str(fields.get("id", id)))]


def _records(fields: JsonObject, kind: str, name: str) -> Iterator[tuple[str, JsonObject]]:
    for resource in objects_of(fields.get(f"resource{kind}", fields.get(f"resource_{kind.lower()}"))) or ():
        scopes = resource.get(
            f"scope{kind}", resource.get(f"scope_{kind.lower()}", resource.get(f"instrumentationLibrary{kind}"))
        )
        for scope in objects_of(scopes) or ():
            yield from ((name, record) for record in objects_of(scope.get(name, scope.get("log_records"))) or ())


def _span(fields: JsonObject) -> _Span:
    span = _Span(
        id=str(fields.get("spanId", fields.get("span_id"))),
        parent=str(fields.get("parentSpanId", fields.get("parent_span_id", ""))),
        name=str(fields.get("name")),
        end=int(str(fields.get("endTimeUnixNano", fields.get("end_time_unix_nano", 0)))),
        attributes=_attributes(fields),
    )
    for event in objects_of(fields.get("events")) or ():
        _add_event(span, event, str(event.get("name")))
    return span


def _add_event(span: _Span, event: JsonObject, name: str) -> None:
    """An event of a whole call says what attributes may say; others are a message each."""
    attributes = _attributes(event)
    body = _value(event.get("body"))
    attributes |= json_object(body) or {}
    name = name or str(attributes.get("event.name", ""))
    if name == "gen_ai.client.inference.operation.details":
        span.attributes |= attributes
    else:
        span.events.append((name, attributes))


def _attributes(fields: JsonObject) -> dict[str, object]:
    return {str(each.get("key")): _value(each.get("value")) for each in objects_of(fields.get("attributes")) or ()}


def _value(value: object) -> object:
    """OTLP's value of any type as JSON has it."""
    fields = json_object(value)
    if not fields:
        return value
    ((kind, held),) = list(fields.items())[:1]
    inner = json_object(held) or {}
    if kind in ("arrayValue", "array_value"):
        return [_value(each) for each in listed(inner.get("values"))]
    if kind in ("kvlistValue", "kvlist_value"):
        return {str(each.get("key")): _value(each.get("value")) for each in objects_of(inner.get("values")) or ()}
    return int(str(held)) if kind in ("intValue", "int_value") else held


def _exchange(span: _Span) -> tuple[list[JsonObject], list[JsonObject]]:
    """What a span's model was given and said, as chat completions have it; nothing of other spans."""
    found = span.attributes
    if "gen_ai.output.messages" in found:
        system = [{"role": "system", "parts": _list_of(found.get("gen_ai.system_instructions"))}]
        given = [*(system if system[0]["parts"] else []), *_objects(found.get("gen_ai.input.messages"))]
        return _messages(given), _messages(_objects(found["gen_ai.output.messages"]))
    if "gen_ai.completion.0.role" in found or "gen_ai.completion.0.content" in found:
        return _indexed(found, "gen_ai.prompt"), _indexed(found, "gen_ai.completion")
    if any(key.startswith("llm.output_messages.0.") for key in found):
        return _indexed(found, "llm.input_messages"), _indexed(found, "llm.output_messages")
    return _of_events(span.events)


def _of_events(events: Sequence[tuple[str, dict[str, object]]]) -> tuple[list[JsonObject], list[JsonObject]]:
    """A message each, or all that was given and said in two events."""
    given: list[JsonObject] = []
    said: list[JsonObject] = []
    for name, attributes in events:
        fields = json_object(_parsed(attributes.get("gen_ai.event.content"))) or attributes
        role = re.fullmatch(r"gen_ai\.(system|user|assistant|tool)\.message", name)
        if role is not None:
            given.append(_event_message(fields, role[1]))
        elif name == "gen_ai.choice":
            said.append(_event_message(json_object(_parsed(fields.get("message"))) or fields, "assistant"))
        elif name == "gen_ai.content.prompt":
            given += _objects(attributes.get("gen_ai.prompt"))
        elif name == "gen_ai.content.completion":
            said += _objects(attributes.get("gen_ai.completion"))
    return given, said


def _event_message(fields: JsonObject, role: str) -> JsonObject:
    content, calls = fields.get("content"), fields.get("tool_calls")
    content = content if content is None or isinstance(content, str) else without_secrets(content)
    message: dict[str, object] = {"role": role, "content": content, "tool_calls": _list_of(calls)}
    return {**message, "tool_call_id": fields.get("id")} if role == "tool" else message


def _messages(messages: Sequence[JsonObject]) -> list[JsonObject]:
    """Messages of the conventions as chat completions have them; tools' answers are a message each."""
    found: list[JsonObject] = []
    for message in messages:
        said: list[object] = []
        calls: list[object] = []
        for part in _objects(message.get("parts", message.get("content"))):
            kind = str(part.get("type"))
            if kind == "tool_call_response":
                result = part.get("response", part.get("result", part.get("content")))
                text = result if isinstance(result, str) else without_secrets(result)
                found.append({"role": "tool", "tool_call_id": part.get("id"), "content": text})
            elif kind in ("tool_call", "server_tool_call"):
                calls.append({"id": part.get("id"), "name": part.get("name"), "arguments": _arguments(part)})
            elif kind == "server_tool_call_response":
                said.append({"type": "text", "text": without_secrets(part.get("server_tool_call_response"))})
            elif kind in _MEDIA:
                said.append({"type": "text", "text": f"[{part.get('modality', kind)}]"})
            elif kind in ("reasoning", "compaction"):
                said.append({"type": "reasoning"})
            elif isinstance(part.get("content"), str):
                said.append({"type": "text", "text": part["content"]})
            else:
                raise ValueError(f"a part of the type {kind!r}, which is not understood")
        if said or calls:
            named = {"name": message["name"]} if message.get("name") else {}
            found.append({"role": message.get("role"), "content": said, "tool_calls": calls, **named})
    return found


def _arguments(part: JsonObject) -> object:
    arguments = part.get("arguments", part.get("server_tool_call"))
    return arguments if arguments is None or isinstance(arguments, str) else without_secrets(arguments)


def _indexed(attributes: Mapping[str, object], prefix: str) -> list[JsonObject]:
    """Messages of which every field is an attribute, with their numbers in its name."""
    messages: dict[int, dict[str, object]] = {}
    calls: dict[int, dict[int, dict[str, object]]] = {}
    for key, value in attributes.items():
        match = re.fullmatch(rf"{re.escape(prefix)}\.(\d+)\.(?:message\.)?(.+)", key)
        if match is None:
            continue
        message = messages.setdefault(int(match[1]), {})
        call = re.fullmatch(r"tool_calls\.(\d+)\.(?:tool_call\.)?(?:function\.)?(\w+)", match[2])
        if call is not None:
            calls.setdefault(int(match[1]), {}).setdefault(int(call[1]), {})[call[2]] = value
        elif match[2] in ("role", "content", "name", "tool_call_id"):
            message[match[2]] = value
        elif re.fullmatch(r"contents\.\d+\.message_content\.text", match[2]):
            message["content"] = "\n".join([*([str(message["content"])] if "content" in message else []), str(value)])
    found: list[JsonObject] = []
    for number, message in sorted(messages.items()):
        written = [each for _, each in sorted(calls.get(number, {}).items())]
        role = message.get("role", "assistant")
        found.append({**message, "role": role, "tool_calls": written})
    return found


def _outwards(span: _Span, spans: Mapping[str, _Span]) -> Iterator[_Span]:
    return outwards(span, spans, id_of=lambda each: each.id, parent_of=lambda each: each.parent)


def _agent_of(span: _Span, spans: Mapping[str, _Span]) -> str:
    for each in _outwards(span, spans):
        found = each.attributes
        name = found.get("gen_ai.agent.name") or found.get("agent.name") or found.get("agent_name")
        if not name and str(found.get("traceloop.span.kind")) in _AGENT_KINDS:
            name = found.get("traceloop.entity.name")
        if not name and str(found.get("openinference.span.kind")) in _AGENT_KINDS:
            name = each.name
        if not name and found.get("gen_ai.operation.name") == "invoke_agent":
            name = each.name.removeprefix("invoke_agent").strip() or found.get("gen_ai.agent.id")
        if isinstance(name, str) and name:
            return name
    return "assistant"


def _parsed(value: object) -> object:
    """A value, which may be written as JSON in a text."""
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
    except ValueError:
        return value


def _list_of(value: object) -> list[object]:
    return listed(_parsed(value))


def _objects(value: object) -> list[JsonObject]:
    """A list of objects; a text is one part, and a list with anything else an error."""
    parsed = _parsed(value)
    if parsed is None:
        return []
    if isinstance(parsed, str):
        return [{"type": "text", "content": parsed}]
    objects = objects_of(parsed)
    if objects is None:
        raise ValueError(f"{str(parsed)[:40]!r} is not a list of objects")
    return objects
