"""Messages of LangChain and LangGraph: as `model_dump`, `dumpd` and `messages_to_dict` write them, alone or in a state.

An AI's message has its agent's name in `name`. Graphs of several agents often pass an agent's answer on as a human's
message with the agent's name: whose name an AI has is an agent, of others nobody can tell (`refuse_unclear_users`).
"""

from collections.abc import Sequence

from framework.gbc.logs.forms.openai import (
    listed,
    log_of_messages,
    message_list,
    objects_of,
    refuse_unclear_users,
    told_beside,
)
from framework.gbc.logs.schema import JsonObject, Log, json_object

_ROLES = {
    "human": "user",
    "ai": "assistant",
    "system": "system",
    "developer": "developer",
    "tool": "tool",
    "function": "function",
}
_CALLS = ("tool_use", "tool_call", "function_call", "invalid_tool_call", "tool_call_chunk", "input_json_delta")
"""Parts of a content that say again what `tool_calls` says."""


def is_langchain(value: object) -> bool:
    """Whether a value is a list of such messages, or an object or a state with one."""
    return message_list(_state(value), lambda message: _type(_fields(message)) in _ROLES) is not None


def logs_of_langchain(value: object, id: str, agents: Sequence[str] | None = None) -> list[Log]:
    """The log of a list of messages, of an object with `messages`, or of a LangGraph state with `values`.

    Args:
        value: parsed JSON; what `openai.Told` has may stand beside `messages`.
        id: of the log, where the value has none.
        agents: names of humans that are agents; None where nobody has said, and then several names are an error.

    Raises:
        ValueError: what is not understood.
    """
    state = _state(value)
    parsed = json_object(state) or {}
    listed_messages = objects_of(parsed.get("messages", state)) or ()
    messages = [_message(_fields(each), number) for number, each in enumerate(listed_messages)]
    if agents is None:
        refuse_unclear_users(messages)
    told = told_beside(parsed if "messages" in parsed else {})
    return [log_of_messages(messages, id=str(parsed.get("id", id)), agents=agents or (), told=told)]


def _state(value: object) -> object:
    """What a LangGraph state holds."""
    parsed = json_object(value) or {}
    return parsed["values"] if "values" in parsed and "messages" not in parsed else value


def _fields(message: JsonObject) -> JsonObject:
    """The fields of a message in any of the three writings, with its type."""
    kwargs, data, path = json_object(message.get("kwargs")), json_object(message.get("data")), listed(message.get("id"))
    if message.get("type") == "constructor" and kwargs is not None and path:
        return {"type": str(path[-1]).removesuffix("Chunk").removesuffix("Message").lower(), **kwargs}
    return {**data, "type": message.get("type")} if data is not None else message


def _type(message: JsonObject) -> str:
    """`ai` of `ai` and `AIMessageChunk`."""
    if "content" not in message:
        return ""
    return str(message.get("type")).removesuffix("MessageChunk").lower()


def _message(message: JsonObject, number: int) -> JsonObject:
    """A message as chat completions have it."""
    role = _ROLES.get(_type(message))
    if role is None:
        raise ValueError(f"messages[{number}]: type {message.get('type')!r}, not {', '.join(_ROLES)}")
    extra = json_object(message.get("additional_kwargs")) or {}
    wrong = [_without_error(each) for each in listed(message.get("invalid_tool_calls"))]
    calls = [*listed(message.get("tool_calls")), *wrong]
    content = message["content"]
    if written := listed(content):
        # Parts may be texts of their own.
        parts = [{"type": "text", "text": each} if isinstance(each, str) else each for each in written]
        content = [part for part in parts if not calls or (json_object(part) or {}).get("type") not in _CALLS]
    named = {"name": message["name"]} if message.get("name") else {}
    return {
        "role": "developer" if extra.get("__openai_role__") == "developer" else role,
        "content": content,
        "tool_calls": calls or listed(extra.get("tool_calls")),
        "function_call": extra.get("function_call") if not calls else None,
        "tool_call_id": message.get("tool_call_id"),
        "is_error": message.get("status") == "error",
        "refusal": extra.get("refusal"),
        **named,
    }


def _without_error(call: object) -> object:
    """A call whose arguments were not JSON, without the parser's complaint: the agent wrote it all the same."""
    fields = json_object(call)
    return call if fields is None else {key: value for key, value in fields.items() if key != "error"}
