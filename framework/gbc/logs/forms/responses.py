"""OpenAI's Responses API and its Agents SDK: items, responses, results of runs, and traces.

A list of items (`result.to_input_list()`, a session's) does not name its agents; handoffs do: who is handed over to
speaks from then on. Items of `new_items` with their agents (`agent`, `raw_item`) are read too. Traces are the spans
that a processor of traces exports; the SDK's own export of the Responses API has no content, which is said.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

from framework.core.text_files import parse_json
from framework.gbc.logs.forms.model_calls import ModelCall, log_of_calls, outwards
from framework.gbc.logs.forms.openai import listed, log_of_messages, objects_of, told_beside, without_secrets
from framework.gbc.logs.schema import JsonObject, Log, json_object

_OWN = {"id", "type", "status", "output", "outputs", "results", "result", "error", "call_id", "agent"}
"""Fields of a call to a tool of the provider's that are not its arguments."""


def is_responses(value: object) -> bool:
    """Whether a value is a response, a request with its output, or a list of items that has more than messages."""
    fields = json_object(value)
    if fields is not None:
        items = fields.get("responses", fields.get("output", fields.get("new_items", fields.get("items"))))
        return objects_of(items) is not None and ("object" in fields or "choices" not in fields) and _are_items(items)
    items = objects_of(value)
    return bool(items) and _are_items(items) and any("type" in each and each["type"] != "message" for each in items)


def logs_of_responses(value: object, id: str) -> list[Log]:
    """The log of items or responses.

    Args:
        value: parsed JSON: a list of items; an object with them under `output`, `new_items` or `items`, what came
            before them in `input` and the prompt in `instructions`; or a chain of such objects in `responses`.
        id: of the log, where the value has none.

    Raises:
        ValueError: what is not understood.
    """
    fields = json_object(value) or {}
    parts = objects_of(fields.get("responses")) or ([fields] if fields else [])
    given: list[object] = []
    prompt = ""
    for part in parts:
        said = part.get("input", [])
        given += [{"role": "user", "content": said}] if isinstance(said, str) else listed(said)
        given += listed(part.get("output", part.get("new_items", part.get("items"))))
        instructions = part.get("instructions")
        prompt = prompt or (instructions if isinstance(instructions, str) else "")
    items = objects_of(given if fields else value)
    if items is None:
        raise ValueError("no list of items")
    numbered = list(messages_of_items(items))
    system = [{"role": "system", "content": prompt}] if prompt else []
    numbers = [*(-1 for _ in system), *(number for number, _ in numbered)]
    messages = [*system, *(message for _, message in numbered)]
    told = told_beside(fields)
    if told.mistake is not None and (labelled := told.mistake.step) in range(len(items)):
        # An item may have joined the one before it.
        step = max((number for number in numbers if labelled is not None and number <= labelled), default=labelled)
        told = replace(told, mistake=replace(told.mistake, step=step))
    return [log_of_messages(messages, id=str(fields.get("id", id)), told=told, numbers=numbers)]


def chained(values: Sequence[object]) -> list[object]:
    """Values with each response put behind the one that it goes on from (`previous_response_id`)."""
    chains: list[list[JsonObject]] = []
    ends: dict[str, list[JsonObject]] = {}
    found: list[object] = []
    for value in values:
        fields = json_object(value)
        if fields is None or fields.get("object") != "response":
            found.append(value)
            continue
        chain = ends.pop(str(fields.get("previous_response_id")), None)
        if chain is None:
            chain = list[JsonObject]()
            chains.append(chain)
        chain.append(fields)
        ends[str(fields.get("id"))] = chain
    return [
        *found,
        *({"id": chain[0].get("id"), "responses": chain} if len(chain) > 1 else chain[0] for chain in chains),
    ]


def messages_of_items(items: Sequence[JsonObject], agent: str = "assistant") -> Iterator[tuple[int, JsonObject]]:
    """Items as messages of chat completions, with their numbers; calls join what was said just before them.

    Args:
        items: in their order.
        agent: who speaks first.

    Raises:
        ValueError: an item that is not understood, by its number.
    """
    said: tuple[int, dict[str, object]] | None = None
    handoffs: list[object] = []
    for number, each in enumerate(items):
        item, agent = _raw(each, agent)
        kind = str(item.get("type", "message"))
        if kind == "message" and item.get("role") != "assistant":
            found: list[JsonObject] = [{"role": item.get("role"), "content": item.get("content")}]
        elif kind == "message":
            if said is None or said[1]["tool_calls"] or _has_text(said[1]):
                if said is not None:
                    yield said
                said = number, {"role": "assistant", "name": agent, "content": [], "tool_calls": list[object]()}
            content = item.get("content")
            cast(list[object], said[1]["content"]).extend(
                [{"text": content}] if isinstance(content, str) else listed(content)
            )
            continue
        elif kind.endswith(("_output", "_response")):
            found = [{"role": "tool", "tool_call_id": _call_id(item), "content": _output(item.get("output"))}]
        elif kind == "reasoning" or kind.endswith("_call") or kind == "mcp_list_tools":
            if said is None:
                said = number, {"role": "assistant", "name": agent, "content": [], "tool_calls": list[object]()}
            if kind == "reasoning":
                cast(list[object], said[1]["content"]).append({"type": "reasoning"})
                continue
            if kind == "mcp_list_tools":
                continue
            call = _call(item)
            cast(list[object], said[1]["tool_calls"]).append(call)
            if str(call["name"]).startswith("transfer_to_"):
                handoffs.append(call["id"])
            result = _result(item)
            if result is None:
                continue
            found = [{"role": "tool", "tool_call_id": call["id"], "content": result}]
        else:
            raise ValueError(f"item {number}: type {kind!r}, which is not understood")
        if said is not None:
            yield said
            said = None
        yield from ((number, message) for message in found)
        if kind.endswith("_output") and _call_id(item) in handoffs:
            agent = _handed_over_to(item) or agent
    if said is not None:
        yield said


def is_agents_trace(value: object) -> bool:
    """Whether a value is a trace or a span of the Agents SDK, or a whole trace put together."""
    fields = json_object(value) or {}
    return fields.get("object") in ("trace", "trace.span") or objects_of(fields.get("spans")) is not None


def put_together(values: Sequence[object]) -> list[object]:
    """Spans by their trace, in an object with `id` and `spans` each."""
    traces: dict[str, list[JsonObject]] = {}
    for value in values:
        fields = json_object(value) or {}
        for span in objects_of(fields.get("spans")) or [fields]:
            if span.get("object") == "trace.span":
                traces.setdefault(str(span.get("trace_id")), []).append(span)
    return [{"id": id, "spans": spans} for id, spans in traces.items()]


def logs_of_agents_trace(value: object, id: str) -> list[Log]:
    """The log of a trace.

    Args:
        value: an object with `id` and `spans`.
        id: where the value has none.

    Raises:
        ValueError: no span has what a model was given and said.
    """
    fields = json_object(value) or {}
    spans = {str(span.get("id")): span for span in objects_of(fields.get("spans")) or ()}
    calls: list[ModelCall] = []
    for span in sorted(spans.values(), key=lambda span: str(span.get("ended_at"))):
        data = json_object(span.get("span_data")) or {}
        given, said = _exchange(data)
        agent = _agent_of(span, spans)
        # A response may call the provider's own tools, read what they give, and go on.
        calls += [
            ModelCall(agent=agent, given=[*given, *said[:number]], said=each)
            for number, each in enumerate(said)
            if each.get("role") != "tool"
        ]
    if not calls:
        raise ValueError(
            "no span has messages: the SDK exports none for the Responses API; log result.to_input_list(), or use a "
            "model of chat completions"
        )
    return [log_of_calls(calls, id=str(fields.get("id", id)))]


def _are_items(value: object) -> bool:
    items = objects_of(value)
    return items is not None and all(
        "raw_item" in each
        or each.get("object") == "response"
        or isinstance(each.get("role"), str)
        or str(each.get("type")).endswith(("_call", "_output", "_response", "reasoning", "mcp_list_tools"))
        for each in items
    )


def _raw(item: JsonObject, agent: str) -> tuple[JsonObject, str]:
    """The item itself, and who speaks."""
    raw = json_object(item.get("raw_item"))
    who = item.get("agent")
    named = json_object(who)
    name = named.get("name") if named is not None else who
    return (item if raw is None else raw), (name if isinstance(name, str) and name else agent)


def _has_text(message: Mapping[str, object]) -> bool:
    return any((json_object(part) or {}).get("type") != "reasoning" for part in listed(message["content"]))


def _call_id(item: JsonObject) -> object:
    return item.get("call_id", item.get("approval_request_id"))


def _call(item: JsonObject) -> dict[str, object]:
    """A call as chat completions have it; what the provider's own tools are asked, as JSON."""
    kind = str(item["type"])
    name = item.get("name")
    if not isinstance(name, str):
        name = kind.removesuffix("_call")
    arguments = item.get("arguments", item.get("input"))
    if arguments is None:
        arguments = without_secrets({key: each for key, each in item.items() if key not in _OWN})
    return {"id": item.get("call_id", item.get("id")), "name": name, "arguments": arguments}


def _result(item: JsonObject) -> str | None:
    """What a tool of the provider's gave, which stands in the call itself; None where it stands elsewhere."""
    for key in ("output", "outputs", "results", "error"):
        if item.get(key) is not None:
            return str(_output(item[key]))
    return None


def _output(value: object) -> object:
    """Texts and parts as they are, anything else as JSON."""
    parts = objects_of(value)
    if isinstance(value, str) or (parts is not None and all("type" in part for part in parts)):
        return value
    return without_secrets(value)


def _handed_over_to(item: JsonObject) -> str | None:
    try:
        fields = json_object(parse_json(str(item.get("output"))))
    except ValueError:
        return None
    name = (fields or {}).get("assistant")
    return name if isinstance(name, str) else None


def _exchange(data: JsonObject) -> tuple[list[JsonObject], list[JsonObject]]:
    """What a span's model was given and said, as chat completions have it."""
    if data.get("type") == "generation":
        return objects_of(data.get("input")) or [], objects_of(data.get("output")) or []
    response = json_object(data.get("response"))
    if data.get("type") != "response" or response is None:
        return [], []
    said = data.get("input", [])
    before = [{"role": "user", "content": said}] if isinstance(said, str) else objects_of(said) or []
    prompt = response.get("instructions")
    system = [{"role": "system", "content": prompt}] if isinstance(prompt, str) else []
    given = [*system, *(message for _, message in messages_of_items(before))]
    return given, [message for _, message in messages_of_items(objects_of(response.get("output")) or [])]


def _agent_of(span: JsonObject, spans: Mapping[str, JsonObject]) -> str:
    """The name of the nearest agent's span around a span."""
    around = outwards(
        span, spans, id_of=lambda each: str(each.get("id")), parent_of=lambda each: str(each.get("parent_id"))
    )
    for each in around:
        data = json_object(each.get("span_data")) or {}
        if data.get("type") == "agent" and isinstance(data.get("name"), str):
            return str(data["name"])
    return "assistant"
