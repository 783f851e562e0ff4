"""Chats of AutoGen: 0.2's message lists (AG2's too), and 0.4's messages, results of tasks and saved teams.

In 0.2 the roles say who looks, not who speaks: agents see each other as users, and a chat is often kept as its first
speaker saw it. So names count: the first message comes from outside, the agents are all who speak after it, but for
users by their names. What a code executor or a tool says is a tool's.
"""

import re
from collections.abc import Sequence

from framework.gbc.logs.forms.openai import (
    Told,
    listed,
    log_of_messages,
    message_list,
    objects_of,
    told_beside,
    without_secrets,
)
from framework.gbc.logs.schema import JsonObject, Log, json_object

_USERS = {"user", "userproxy", "userproxyagent", "human", "humanuser", "humanproxy", "admin"}
_EXITCODE = "exitcode: "
_PRIVATE = {
    "ModelClientStreamingChunkEvent",
    "UserInputRequestedEvent",
    "SelectSpeakerEvent",
    "SelectorEvent",
}
"""0.4's events that say nothing to an agent: parts of what comes whole, and what the team's manager notes."""


def is_autogen_02(value: object) -> bool:
    """Whether a value is a list of 0.2's messages, or an object with one in `chat_history` (a `ChatResult`)."""
    messages = message_list(_chat(value), _is_02)
    if messages is None:
        return False
    roles = {message.get("role") for message in messages}
    if "chat_history" in (json_object(value) or {}):
        return True
    spoken = [each for each in messages if each.get("role") not in ("system", "tool", "function")]
    return "user" in roles and len(spoken) > 1 and all(each.get("name") for each in spoken)


def logs_of_autogen_02(value: object, id: str, agents: Sequence[str] | None = None) -> list[Log]:
    """The log of a chat.

    Args:
        value: parsed JSON; what `openai.Told` has may stand beside the list.
        id: of the log, where the value has none.
        agents: names of the agents; None: by the rule of this module.

    Raises:
        ValueError: what is not understood.
    """
    parsed = json_object(value) or {}
    messages = message_list(_chat(value), _is_02)
    if messages is None:
        raise ValueError("neither a list of messages with roles nor an object with chat_history")
    if "chat_history" in parsed and not any(each.get("name") for each in messages):
        messages = [_seen_from_the_other_side(each) for each in messages]
    numbered = [
        (number, each)
        for number, message in enumerate(messages)
        for each in _messages_02(message, number, messages, agents)
    ]
    return [_log_of(numbered, id=str(parsed.get("id", id)), told=told_beside(parsed))]


def is_autogen_04(value: object) -> bool:
    """Whether a value is a list of 0.4's messages, a task's result with `messages`, or a saved team."""
    return message_list(_team(value), lambda each: isinstance(each.get("source"), str) and "type" in each) is not None


def logs_of_autogen_04(value: object, id: str, agents: Sequence[str] | None = None) -> list[Log]:
    """The log of a list of messages, a task's result, or a team's saved state.

    Args:
        value: parsed JSON; what `openai.Told` has may stand beside `messages`.
        id: of the log, where the value has none.
        agents: names of the agents; None: by the rule of this module.

    Raises:
        ValueError: what is not understood.
    """
    parsed = json_object(value) or {}
    messages = message_list(_team(value), lambda each: isinstance(each.get("source"), str))
    if messages is None:
        raise ValueError("no list of messages with a source")
    numbered: list[tuple[int, JsonObject]] = []
    thoughts: dict[str, str] = {}
    for number, message in enumerate(messages):
        source = str(message["source"])
        if message.get("type") == "ThoughtEvent":
            thoughts[source] = str(message.get("content"))
            continue
        try:
            found = _messages_04(message, _role(source, number, agents), thoughts.pop(source, ""))
        except ValueError as error:
            raise ValueError(f"messages[{number}]: {error}") from None
        numbered += [(number, each) for each in found]
    told = told_beside(parsed if "messages" in parsed else {})
    return [_log_of(numbered, id=str(parsed.get("id", id)), told=told)]


def _log_of(numbered: Sequence[tuple[int, JsonObject]], *, id: str, told: Told) -> Log:
    """The log of messages whose roles are decided, with their numbers."""
    messages = [message for _, message in numbered]
    numbers = [number for number, _ in numbered]
    return log_of_messages(messages, id=id, told=told, numbers=numbers, users_may_be_agents=False)


def _chat(value: object) -> object:
    parsed = json_object(value) or {}
    return parsed.get("chat_history", value)


def _is_02(message: JsonObject) -> bool:
    return isinstance(message.get("role"), str) and "type" not in message


def _seen_from_the_other_side(message: JsonObject) -> JsonObject:
    """A nameless chat is kept as the user's agent saw it, who is the assistant there."""
    other = {"assistant": "user", "user": "assistant"}
    return {**message, "role": other.get(str(message["role"]), message["role"])}


def _role(name: str, number: int, agents: Sequence[str] | None) -> str:
    """Of the first message and of users `user`, of others `assistant`."""
    if agents is not None:
        return "assistant" if name in agents else "user"
    is_user = number == 0 or re.sub(r"[\W_]", "", name).casefold() in _USERS
    return "user" if is_user else "assistant"


def _messages_02(
    message: JsonObject, number: int, messages: Sequence[JsonObject], agents: Sequence[str] | None
) -> list[JsonObject]:
    """A message as chat completions have it; one with several tools' answers is several."""
    name, role, text = message.get("name"), str(message["role"]), message.get("content")
    answers = objects_of(message.get("tool_responses"))
    if answers:
        return [
            {"role": "tool", "tool_call_id": each.get("tool_call_id"), "content": each.get("content")}
            for each in answers
        ]
    if role in ("system", "tool", "function"):
        return [message]
    if isinstance(text, str) and text.startswith(_EXITCODE):
        return [{"role": "function", "name": name or "code_executor", "content": text}]
    if not isinstance(name, str) or not name:
        return [message]
    first = next((n for n, each in enumerate(messages) if each["role"] != "system"), 0)
    # Calls are an agent's, whoever it is; a proxy that only passes on says nothing.
    calls = bool(message.get("tool_calls") or message.get("function_call"))
    role = "assistant" if calls else _role(name, number - first, agents)
    return [{**message, "role": role}] if text or calls or role == "assistant" else []


def _team(value: object) -> object:
    """The messages of a saved team are its manager's thread."""
    states = json_object((json_object(value) or {}).get("agent_states"))
    for state in (states or {}).values():
        inner = json_object(state) or {}
        inner = json_object(inner.get("agent_state")) or inner
        if listed(inner.get("message_thread")):
            return inner["message_thread"]
    return value


def _messages_04(message: JsonObject, role: str, thought: str) -> list[JsonObject]:
    """A message as chat completions have it.

    Args:
        message: of any type.
        role: of its source.
        thought: what the source thought before it, which stands in a call's message and nowhere else.
    """
    kind, content, name = str(message.get("type")), message.get("content"), message["source"]
    if kind in _PRIVATE:
        return []
    if kind == "ToolCallRequestEvent":
        calls = [{"id": each.get("id"), "function": _call(each)} for each in objects_of(content) or ()]
        return [{"role": "assistant", "name": name, "content": thought, "tool_calls": calls}]
    if kind == "ToolCallExecutionEvent":
        results = objects_of(content) or ()
        given = {"call_id": "tool_call_id", "content": "content", "is_error": "is_error"}
        return [{"role": "tool", **{ours: each.get(theirs) for theirs, ours in given.items()}} for each in results]
    if kind == "CodeExecutionEvent":
        result = json_object(message.get("result")) or {}
        return [
            {"role": "function", "name": "code_executor", "content": str(result.get("output", message.get("result")))}
        ]
    if kind == "MemoryQueryEvent":
        texts = (str(each.get("content")) for each in objects_of(content) or ())
        return [{"role": "user", "name": "memory", "content": "\n".join(texts)}]
    if parts := listed(content):
        # An image is an object with its bytes.
        content = "\n".join(each if isinstance(each, str) else "[image]" for each in parts)
    elif json_object(content) is not None:
        content = without_secrets(content)
    if not isinstance(content, str):
        raise ValueError(f"a message of the type {kind!r}, which is not understood")
    return [{"role": role, "name": name, "content": content}]


def _call(each: JsonObject) -> JsonObject:
    return {"name": each.get("name"), "arguments": each.get("arguments")}
