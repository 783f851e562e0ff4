"""Message lists as OpenAI's chat completions take them, and as many frameworks log them.

System and developer messages at the beginning are the prompt of the agent that they name, otherwise of all agents;
later ones are read like a user's. An `assistant` is an agent, by its `name`; so is a `user` whose name an assistant
has too, since frameworks of several agents show the others to each as users. A `tool` is named after the call that it
answers. A part or a call that is not understood is an error: what it says would be lost. Other forms' messages are
brought into this one.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import cast

from framework.core.serialization import from_json
from framework.gbc.logs.schema import (
    JsonObject,
    Log,
    Message,
    Mistake,
    Role,
    ToolCall,
    json_object,
)

_SYSTEM = ("system", "developer")
_ARGUMENTS = ("arguments", "parameters", "input", "args")
"""Keys of a call's arguments: OpenAI's, Llama's, Anthropic's, LangChain's."""
_NO_TEXT = {
    *("image", "image_url", "input_image", "audio", "input_audio", "video", "video_url", "file", "input_file"),
    *("document", "thinking", "redacted_thinking", "reasoning"),
}
"""Types of parts that are named in place of their content: others than the author see no thoughts, a model no file."""
_FAILED = "[error]"
"""Stands before what a tool says that has failed: models are told so beside the text."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a line may tell beside the messages, each as in `Log`.

    Attributes:
        task: what the system was asked.
        answer: of the system.
        expected: the right answer.
        correct: whether the answer is right.
        mistake: the label; its step counts the list of messages as it was written.
    """

    task: str | None = None
    answer: str | None = None
    expected: str | None = None
    correct: bool | None = None
    mistake: Mistake | None = None


def told_beside(value: JsonObject) -> Told:
    """The fields of an object that tell of the run; others are left alone.

    Raises:
        ValueError: a field of another type.
    """
    known = {each.name: value[each.name] for each in fields(Told) if each.name in value}
    return from_json(Told, known, allow_missing=True)


def is_openai(value: object) -> bool:
    """Whether a value is a list of chat completions' messages, or an object with one."""
    return message_list(value, lambda message: isinstance(message.get("role"), str)) is not None


def logs_of_openai(value: object, id: str, agents: Sequence[str] | None = None) -> list[Log]:
    """The log of a list of messages, or of an object with `messages` and what `Told` has.

    Args:
        value: parsed JSON.
        id: of the log, where the object has none.
        agents: names of users that are agents; None where nobody has said, and then several names are an error.

    Raises:
        ValueError: what `log_of_messages` finds, or users of whom it is not clear whether they are agents.
    """
    parsed = json_object({"messages": cast(object, value)} if isinstance(value, list) else value)
    if parsed is None:
        raise ValueError("neither a list of messages nor an object")
    messages = parsed.get("messages")
    if agents is None and (listed := objects_of(messages)) is not None:
        refuse_unclear_users(listed)
    told = told_beside(parsed)
    return [log_of_messages(messages, id=str(parsed.get("id", id)), agents=agents or (), told=told)]


def refuse_unclear_users(messages: Sequence[JsonObject]) -> None:
    """Raises ValueError if several users have names that no assistant has: agents or humans, nobody can tell."""
    assistants = {_name(message) for message in messages if message.get("role") == "assistant"}
    names = {_name(each) for each in messages if each.get("role") == "user" and each.get("name")} - assistants
    if len(names) > 1 or (names and not assistants):
        known = ", ".join(sorted(names))
        raise ValueError(f"{known} speak as users: are they agents? Name those that are with --agents (or --agents [])")


def message_list(value: object, is_message: Callable[[JsonObject], bool]) -> list[JsonObject] | None:
    """The messages of a list, or of an object's `messages`; None if any is not one, or there is none.

    Args:
        value: parsed JSON.
        is_message: whether an object is a message of a form.
    """
    parsed = json_object(value)
    found = objects_of(value if parsed is None else parsed.get("messages"))
    return found if found and all(map(is_message, found)) else None


def log_of_messages(
    messages: object,
    *,
    id: str,
    agents: Sequence[str] = (),
    told: Told = Told(),
    numbers: Sequence[int] | None = None,
    users_may_be_agents: bool = True,
) -> Log:
    """The log of a message list.

    Args:
        messages: the list.
        id: of the log.
        agents: names of users that are agents too.
        told: what else is known of the run; the task is by default the first user's message.
        numbers: what the label's step calls each message; by default its place in the list.
        users_may_be_agents: a user with an agent's name is that agent.

    Raises:
        ValueError: what is not a message; names it by its number.
        DataError: what `Log` finds.
    """
    objects = objects_of(messages)
    if objects is None:
        raise ValueError("messages is not a list of objects")
    known = {*agents, *(_name(message) for message in objects if message.get("role") == "assistant")}
    prompts: dict[str, str] = {}
    found: list[Message] = []
    places: list[int] = []
    names: dict[str, str] = {}
    for number, message in _expanded(objects, range(len(objects)) if numbers is None else numbers):
        try:
            if message.get("role") in _SYSTEM and not found:
                own = _name(message)
                for name in [own] if message.get("name") in known else sorted(known):
                    prompts[name] = "\n\n".join(filter(None, [prompts.get(name), content_of(message)]))
                continue
            found.append(message_of(message, known if users_may_be_agents else (), names))
        except ValueError as error:
            raise ValueError(f"messages[{number}]: {error}") from None
        places.append(number)
        names.update((call.id, call.name) for call in found[-1].tool_calls)
    asked = next((message.content for message in found if message.role == "user"), "")
    return Log(
        id=id,
        task=asked if told.task is None else told.task,
        messages=tuple(found),
        prompts=prompts,
        answer=told.answer,
        expected=told.expected,
        correct=told.correct,
        mistake=_renumbered(told.mistake, places),
    )


def message_of(message: JsonObject, agents: Collection[str], calls: Mapping[str, str]) -> Message:
    """A message of the list that is not a prompt.

    Args:
        message: as chat completions have it; a tool's may have `is_error`.
        agents: names of users that are agents.
        calls: names of tools by the ids of the calls so far.

    Raises:
        ValueError: what is not understood.
    """
    role: object = message.get("role")
    name = _name(message)
    if role == "assistant":
        return Message(agent=name, content=content_of(message), tool_calls=_calls(message))
    if role in ("user", *_SYSTEM):
        kind: Role = "agent" if role == "user" and name in agents else "user"
        return Message(agent=name, role=kind, content=content_of(message))
    if role == "function":
        return Message(agent=name, role="tool", content=content_of(message), call=name if name in calls else None)
    if role == "tool":
        call = message.get("tool_call_id")
        if not isinstance(call, str) or call not in calls:
            raise ValueError(f"tool_call_id {call!r} is not a call before it")
        content = content_of(message)
        if message.get("is_error") is True:
            content = f"{_FAILED}\n{content}".rstrip("\n")
        return Message(agent=calls[call], role="tool", content=content, call=call)
    raise ValueError(f"role {role!r}, not system, developer, user, assistant, tool or function")


def objects_of(values: object) -> list[JsonObject] | None:
    """A list of JSON objects; None if it is not one."""
    if not isinstance(values, list):
        return None
    objects = [json_object(each) for each in cast(list[object], values)]
    found = [each for each in objects if each is not None]
    return found if len(found) == len(objects) else None


def _name(message: JsonObject) -> str:
    name = message.get("name")
    return name if isinstance(name, str) and name else str(message.get("role"))


def content_of(message: JsonObject) -> str:
    """The text of a message; of a list of parts the texts, and of other parts their types in brackets."""
    content = message.get("content")
    if content is None:
        refusal = message.get("refusal")
        return refusal if isinstance(refusal, str) else ""
    if isinstance(content, str):
        return content
    parts = objects_of(content)
    if parts is not None:
        return "\n".join(map(_text_of_part, parts))
    raise ValueError(f"content is {str(content)[:40]!r}, not a text or a list of parts")


def _text_of_part(part: JsonObject) -> str:
    text = part.get("text", part.get("refusal"))
    if isinstance(text, str):
        return text
    if (given := _text_of_source(part)) is not None:
        return "\n".join(filter(None, [*(str(part.get(key) or "") for key in ("title", "context")), given]))
    if str(part.get("type")) in _NO_TEXT:
        return f"[{part['type']}]"
    raise ValueError(f"a part of the type {part.get('type')!r}, which is not understood")


def _text_of_source(part: JsonObject) -> str | None:
    """The text of Anthropic's documents and search results; None where they have none, as a PDF."""
    if part.get("type") == "search_result":
        return content_of(part)
    source = json_object(part.get("source")) if part.get("type") == "document" else None
    if source is None:
        return None
    if source.get("type") == "text" and isinstance(source.get("data"), str):
        return str(source["data"])
    return content_of(source) if source.get("type") == "content" else None


def _expanded(messages: Sequence[JsonObject], numbers: Sequence[int]) -> Iterator[tuple[int, JsonObject]]:
    """The messages with their numbers, those with Anthropic's parts as OpenAI writes them.

    Calls leave the content of their message; each result of a tool is a message of its own, where it stands: tools that
    run on the server answer in the middle of what the assistant says.
    """
    for number, message in zip(numbers, messages, strict=True):
        parts = objects_of(message.get("content"))
        if parts is None or not any(_is_call(part) or _is_result(part) for part in parts):
            yield number, message
            continue
        calls, said = listed(message.get("tool_calls")), list[object]()
        for part in parts:
            if _is_result(part):
                if said or calls:
                    yield number, {**message, "content": said, "tool_calls": calls}
                calls, said = [], []
                content = _result(part.get("content"))
                told = {"content": content, "is_error": part.get("is_error")}
                yield number, {"role": "tool", "tool_call_id": part.get("tool_use_id"), **told}
            elif _is_call(part):
                calls.append(part)
            else:
                said.append(part)
        if said or calls:
            yield number, {**message, "content": said, "tool_calls": calls}


def _is_call(part: JsonObject) -> bool:
    return str(part.get("type")).endswith("tool_use")


def _is_result(part: JsonObject) -> bool:
    return str(part.get("type")).endswith("tool_result")


def _result(content: object) -> object:
    """What a tool gave: texts as they are, records of the provider's own tools as JSON."""
    parts = objects_of(content)
    if parts is not None and all(map(_is_readable, parts)):
        return parts
    return content if content is None or isinstance(content, str) else without_secrets(content)


def _is_readable(part: JsonObject) -> bool:
    return isinstance(part.get("text"), str) or str(part.get("type")) in (*_NO_TEXT, "search_result")


def without_secrets(value: object) -> str:
    """A value as JSON, without fields that only its provider can read."""

    def readable(each: object) -> object:
        if isinstance(each, list):
            return [readable(item) for item in cast(list[object], each)]
        fields = json_object(each)
        return each if fields is None else {k: readable(v) for k, v in fields.items() if not k.startswith("encrypted")}

    return json.dumps(readable(value), ensure_ascii=False)


def listed(value: object) -> list[object]:
    """A copy of a list; empty where it is not one."""
    return [*cast(list[object], value)] if isinstance(value, list) else []


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
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        found.append(ToolCall(id=str(call.get("id") or ""), name=name, arguments=text))
    return tuple(found)


def _renumbered(mistake: Mistake | None, numbers: Sequence[int]) -> Mistake | None:
    """The label with its step's number among the messages that are left."""
    if mistake is None or mistake.step is None:
        return mistake
    if mistake.step not in numbers:
        raise ValueError(f"the mistake is at step {mistake.step}, which is not a message of an agent, a user or a tool")
    return Mistake(agent=mistake.agent, step=numbers.index(mistake.step), reason=mistake.reason)
