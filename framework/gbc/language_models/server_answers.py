"""Answers of a server that speaks OpenAI's chat completions: what was said in one, or why nothing was."""

import json
from collections.abc import Mapping
from typing import cast

from framework.core.errors import DataError
from framework.core.text_files import half_character_in
from framework.gbc.language_models.interface import Request

_LONGEST_QUOTE = 200


def choice_of(answer: object) -> Mapping[str, object] | None:
    """The first choice of a chat completion, if it is one."""
    choices = cast("Mapping[str, object]", answer).get("choices") if isinstance(answer, dict) else None
    choice = cast("list[object]", choices)[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict) or not isinstance(cast("dict[str, object]", choice).get("message"), dict):
        return None
    return cast("dict[str, object]", choice)


def said_in(choice: Mapping[str, object], request: Request, url: str) -> str:
    """The text of a choice.

    Args:
        choice: of a chat completion.
        request: what was asked.
        url: of the server, for messages.

    Raises:
        DataError: there is none, with the reason: thoughts that took all tokens, a refusal, calls, half a character.
    """
    message, finish = cast("Mapping[str, object]", choice["message"]), choice.get("finish_reason")
    text = _joined(message.get("content"))
    thoughts = message.get("reasoning_content") or message.get("reasoning")
    problem, hint = "", "see the server's answer"
    is_thought = text.lstrip().startswith("<think>") and "</think>" not in text
    if finish == "content_filter":
        problem, hint = "was cut off by the server's filter (content_filter)", "see what the agents read"
    elif finish == "length" and (not text.strip() or is_thought):
        problem = f"spent all of its {request.max_new_tokens} new tokens on thoughts"
        hint = "raise max_new_tokens of the agent, or turn thinking off by `request: {extra: ...}` of the model"
    elif not text.strip() and isinstance(thoughts, str) and thoughts.strip():
        problem, hint = (
            f"thought {len(thoughts)} characters and said nothing",
            "change the prompt, or turn thinking off",
        )
    elif message.get("content") is None:
        problem, hint = (
            f"gave no chat completion with a text: {quote(choice)}",
            "see the finish_reason and the message",
        )
    elif (found := half_character_in(text)) is not None:
        problem = f"answered with {found}"
    if problem:
        raise DataError(f"{url} on {request.step!r}: the model {problem}", hint=hint)
    return text


def _joined(content: object) -> str:
    """A message's text, also of one that comes in parts; thoughts among them are left out."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    parts = [cast("dict[str, object]", part) for part in cast("list[object]", content) if isinstance(part, dict)]
    return "".join(str(part.get("text", "")) for part in parts if part.get("type") in ("text", "output_text"))


def quote(value: object) -> str:
    """What a server said, in one line that is not too long."""
    text = " ".join(value.split()) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}…"


def usage_of(answer: Mapping[str, object]) -> tuple[int, int] | None:
    """Tokens read and written, where the server tells."""
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return None
    counts = cast(dict[str, object], usage)
    read, written = counts.get("prompt_tokens"), counts.get("completion_tokens")
    return (read, written) if isinstance(read, int) and isinstance(written, int) else None
