"""Message lists as OpenAI's chat completions take them, and as many frameworks log them.

System and developer messages at the beginning are the prompt of the agent that they name, otherwise of all agents;
later ones are read like a user's. An `assistant` is an agent, by its `name`; so is a `user` whose name an assistant
has too, since frameworks of several agents show the others to each as users. A `tool` is named after the call that it
answers. Anthropic's parts are read too: `tool_use` is a call, `tool_result` a tool's message. A part or a call that is
not understood is an error: what it says would be lost.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast

from framework.core.serialization import from_json
from framework.core.text_files import BadLine
from framework.gbc.logs.schema import (
    JsonObject,
    Log,
    Message,
    Mistake,
    Role,
    ToolCall,
    json_object,
    parse_log,
    read_logs,
)

_SYSTEM = ("system", "developer")
_ARGUMENTS = ("arguments", "parameters", "input", "args")
"""Keys of a call's arguments: OpenAI's, Llama's, Anthropic's, LangChain's."""
_NO_TEXT = {
    *("image", "image_url", "input_image", "audio", "input_audio", "video", "video_url", "file", "input_file"),
    *("document", "thinking", "redacted_thinking", "reasoning"),
}
"""Types of parts that are named in place of their content: others than the author see no thoughts, a model no file."""


@dataclass(frozen=True, kw_only=True)
class _Told:
    """What a line tells beside the messages."""

    task: str | None = None
    answer: str | None = None
    expected: str | None = None
    correct: bool | None = None
    mistake: Mistake | None = None


def read_openai(path: str | Path, *, skip_bad_lines: bool = False) -> tuple[list[Log], list[BadLine]]:
    """The logs of JSON lines: each a list of messages, or an object with `messages`.

    Of an object, `id`, `task`, `answer`, `expected`, `correct` and `mistake` mean what they mean in the schema
    (`schema.py`); anything else is left alone. The id is by default the line's number, from 1.

    Raises:
        DataError: as `read_logs`.
    """

    def parse(line: str, number: int) -> Log:
        parsed = parse_log(line)
        value = json_object({"messages": cast(object, parsed)} if isinstance(parsed, list) else parsed)
        if value is None:
            raise ValueError("neither a list of messages nor an object")
        known = {each.name: value[each.name] for each in fields(_Told) if each.name in value}
        told = from_json(_Told, known, allow_missing=True)
        return log_of_messages(
            value.get("messages"),
            id=str(value.get("id", number)),
            task=told.task,
            answer=told.answer,
            expected=told.expected,
            correct=told.correct,
            mistake=told.mistake,
        )

    return read_logs(path, skip_bad_lines=skip_bad_lines, parse=parse)


def log_of_messages(
    messages: object,
    *,
    id: str,
    task: str | None = None,
    agents: Sequence[str] = (),
    answer: str | None = None,
    expected: str | None = None,
    correct: bool | None = None,
    mistake: Mistake | None = None,
) -> Log:
    """The log of a message list.

    Args:
        messages: the list.
        id: of the log.
        task: what the system was asked; by default the first user's message.
        agents: names of users that are agents too.
        answer: of the system, as in `Log`.
        expected: the right answer, as in `Log`.
        correct: whether the answer is right, as in `Log`.
        mistake: as in `Log`, but its step counts the messages of the list.

    Raises:
        ValueError: what is not a message; names it by its number.
        DataError: what `Log` finds.
    """
    objects = _objects(messages)
    if objects is None:
        raise ValueError("messages is not a list of objects")
    known = {*agents, *(_name(message) for message in objects if message.get("role") == "assistant")}
    prompts: dict[str, str] = {}
    found: list[Message] = []
    numbers: list[int] = []
    names: dict[str, str] = {}
    for number, message in _expanded(objects):
        try:
            if message.get("role") in _SYSTEM and not found:
                own = _name(message)
                for name in [own] if message.get("name") in known else sorted(known):
                    prompts[name] = "\n\n".join(filter(None, [prompts.get(name), _content(message)]))
                continue
            found.append(_message(message, known, names))
        except ValueError as error:
            raise ValueError(f"messages[{number}]: {error}") from None
        numbers.append(number)
        names.update((call.id, call.name) for call in found[-1].tool_calls)
    asked = next((message.content for message in found if message.role == "user"), "")
    return Log(
        id=id,
        task=asked if task is None else task,
        messages=tuple(found),
        prompts=prompts,
        answer=answer,
        expected=expected,
        correct=correct,
        mistake=_renumbered(mistake, numbers),
    )


def _message(message: JsonObject, agents: set[str], calls: Mapping[str, str]) -> Message:
    role: object = message.get("role")
    name = _name(message)
    if role == "assistant":
        return Message(agent=name, content=_content(message), tool_calls=_calls(message))
    if role in ("user", *_SYSTEM):
        kind: Role = "agent" if role == "user" and name in agents else "user"
        return Message(agent=name, role=kind, content=_content(message))
    if role == "function":
        return Message(agent=name, role="tool", content=_content(message), call=name if name in calls else None)
    if role == "tool":
        call = message.get("tool_call_id")
        if not isinstance(call, str) or call not in calls:
            raise ValueError(f"tool_call_id {call!r} is not a call before it")
        return Message(agent=calls[call], role="tool", content=_content(message), call=call)
    raise ValueError(f"role {role!r}, not system, developer, user, assistant, tool or function")


def _objects(values: object) -> list[JsonObject] | None:
    """A list of JSON objects; None if it is not one."""
    if not isinstance(values, list):
        return None
    objects = [json_object(each) for each in cast(list[object], values)]
    found = [each for each in objects if each is not None]
    return found if len(found) == len(objects) else None


def _name(message: JsonObject) -> str:
    name = message.get("name")
    return name if isinstance(name, str) and name else str(message.get("role"))


def _content(message: JsonObject) -> str:
    """The text; of a list of parts the texts, and of other parts their types in brackets."""
    content = message.get("content")
    if content is None:
        refusal = message.get("refusal")
        return refusal if isinstance(refusal, str) else ""
    if isinstance(content, str):
        return content
    parts = _objects(content)
    if parts is not None:
        return "\n".join(map(_text_of_part, parts))
    raise ValueError(f"content is {str(content)[:40]!r}, not a text or a list of parts")


def _text_of_part(part: JsonObject) -> str:
    text = part.get("text", part.get("refusal"))
    if isinstance(text, str):
        return text
    if part.get("type") in _NO_TEXT:
        return f"[{part['type']}]"
    raise ValueError(f"a part of the type {part.get('type')!r}, which is not understood")


def _expanded(messages: Sequence[JsonObject]) -> Iterator[tuple[int, JsonObject]]:
    """The messages with their numbers, those with Anthropic's parts as OpenAI writes them.

    Calls leave the content of their message; each result of a tool is a message of its own, before what the user says.
    """
    for number, message in enumerate(messages):
        content = message.get("content")
        parts = _objects(content)
        kinds = {part.get("type") for part in parts or ()}
        if parts is None or not kinds & {"tool_use", "tool_result"}:
            yield number, message
            continue
        results = [part for part in parts if part.get("type") == "tool_result"]
        calls = [part for part in parts if part.get("type") == "tool_use"]
        others = [part for part in parts if part.get("type") not in ("tool_use", "tool_result")]
        for result in results:
            said = result.get("content", "")
            yield number, {"role": "tool", "tool_call_id": result.get("tool_use_id"), "content": said}
        if others or calls:
            yield number, {**message, "content": others, "tool_calls": [*_listed(message.get("tool_calls")), *calls]}


def _listed(value: object) -> list[object]:
    return cast(list[object], value) if isinstance(value, list) else []


def _calls(message: JsonObject) -> tuple[ToolCall, ...]:
    """The calls, parallel ones in their order; a `function_call` of the older interface has its name for an id."""
    old, new = json_object(message.get("function_call")), message.get("tool_calls")
    if new and not isinstance(new, list):
        raise ValueError(f"tool_calls is {str(new)[:40]!r}, not a list")
    calls = [*cast(list[object], new or [])]
    calls += [{"id": old.get("name"), "function": old}] if old else []
    found: list[ToolCall] = []
    for each in calls:
        call = json_object(each) or {}
        function = json_object(call.get("function")) or call
        name = function.get("name")
        if not isinstance(name, str):
            raise ValueError(f"the call {str(each)[:40]!r} has no function with a name")
        given = [function[key] for key in _ARGUMENTS if function.get(key) is not None]
        unknown = function.keys() - {"name", "id", "type", "index", "description", *_ARGUMENTS}
        if len(given) > 1 or (unknown and not given):
            raise ValueError(f"the call {str(each)[:40]!r} does not say what its arguments are")
        arguments = given[0] if given else ""
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        found.append(ToolCall(id=str(call.get("id") or ""), name=name, arguments=text))
    return tuple(found)


def _renumbered(mistake: Mistake | None, numbers: Sequence[int]) -> Mistake | None:
    """The label with its step's number among the messages that are left."""
    if mistake is None or mistake.step is None:
        return mistake
    if mistake.step not in numbers:
        raise ValueError(f"the mistake is at step {mistake.step}, which is not a message of an agent, a user or a tool")
    return Mistake(agent=mistake.agent, step=numbers.index(mistake.step), reason=mistake.reason)
