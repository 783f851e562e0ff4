"""Conversations with Anthropic's Messages API: requests, their responses, or both.

A request has `messages` and its prompt in `system`. A response is a message of its own (`type: message`), as its client
dumps it. Calls and results of tools are parts of contents, which `openai.log_of_messages` takes apart.
"""

from framework.gbc.logs.forms.openai import (
    content_of,
    log_of_messages,
    message_list,
    objects_of,
    told_beside,
)
from framework.gbc.logs.schema import JsonObject, Log, json_object

_PARTS = {"thinking", "redacted_thinking", "tool_use", "tool_result", "server_tool_use", "mcp_tool_use"}


def is_anthropic(value: object) -> bool:
    """Whether a value is such a conversation: by its prompt's place, a response, or a part that only they have."""
    messages = _messages(value)
    if messages is None or any(each.get("role") not in ("user", "assistant", "system") for each in messages):
        return False
    if messages[0].get("role") == "system":
        return False
    parsed = json_object(value) or {}
    return "system" in parsed or any(map(_is_response, messages)) or any(map(_has_part, messages))


def logs_of_anthropic(value: object, id: str) -> list[Log]:
    """The log of a conversation: a list of messages, a request, or an object with `request` and `response`.

    Args:
        value: parsed JSON; what `openai.Told` has may stand beside `messages`.
        id: of the log, where the value has none.

    Raises:
        ValueError: what is not understood.
    """
    parsed = json_object(value) or {}
    messages = _messages(value)
    if messages is None:
        raise ValueError("no messages with the roles user and assistant")
    request = json_object(parsed.get("request")) or parsed
    prompt = content_of({"content": request.get("system")})
    found = [{key: each[key] for key in ("role", "content", "name") if key in each} for each in messages]
    first = -1 if prompt else 0
    told = told_beside(parsed if "messages" in parsed else {})
    name = parsed.get("id", id)
    given = [{"role": "system", "content": prompt}] if prompt else []
    return [log_of_messages([*given, *found], id=str(name), told=told, numbers=range(first, len(found)))]


def _messages(value: object) -> list[JsonObject] | None:
    """The messages of a value, its response behind those of the request."""
    parsed = json_object(value)
    if parsed is None:
        return message_list(value, _is_message)
    if _is_response(parsed):
        return [parsed]
    request = json_object(parsed.get("request")) or parsed
    messages = message_list(request, _is_message)
    response = json_object(parsed.get("response"))
    if messages is None or response is None:
        return messages
    return [*messages, response] if _is_response(response) else None


def _is_message(message: JsonObject) -> bool:
    return isinstance(message.get("role"), str) and "content" in message


def _is_response(message: JsonObject) -> bool:
    return message.get("type") == "message" and message.get("role") == "assistant" and "stop_reason" in message


def _has_part(message: JsonObject) -> bool:
    return any(str(part.get("type")) in _PARTS for part in objects_of(message.get("content")) or ())
