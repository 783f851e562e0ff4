"""Answers of a server that speaks OpenAI's chat completions: what was said in one, or why nothing was."""

import json
import re
from collections.abc import Mapping
from html import unescape
from typing import cast

from framework.core.errors import DataError
from framework.core.serialization import parse_object
from framework.core.text_files import half_character_in
from framework.gbc.language_models.interface import Request
from framework.gbc.language_models.tool_calls.thoughts import without_thoughts

_LONGEST_QUOTE = 200
_PAGE = re.compile(r"\s*<(?:!doctype|html|head|body)\b", re.IGNORECASE)
_TAGS = re.compile(r"<(style|script)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>", re.IGNORECASE | re.DOTALL)


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
    is_thought = bool(text.strip()) and not without_thoughts(text)
    if finish == "content_filter":
        problem, hint = "was cut off by the server's filter (content_filter)", "see what the agents read"
    elif finish == "length" and (not text.strip() or is_thought):
        problem = f"spent all of its {request.max_new_tokens} new tokens on thoughts"
        hint = "raise max_new_tokens of the agent, or turn thinking off by `request: {extra: ...}` of the model"
    elif is_thought or (not text.strip() and isinstance(thoughts, str) and thoughts.strip()):
        problem, hint = (
            f"thought {len(text.strip() or str(thoughts))} characters and said nothing",
            "change the prompt, or turn thinking off",
        )
    elif not isinstance(message.get("content"), str | list):
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


def error_state(content: bytes) -> int | None:
    """The state in the error that an answer is, as routers send one of success; None where it is none, or has none."""
    try:
        answer = parse_object(content)
    except ValueError:
        return None
    error = answer.get("error")
    code = cast("dict[str, object]", error).get("code") if isinstance(error, dict) and "choices" not in answer else None
    return int(code) if isinstance(code, int | str) and str(code).isdecimal() else None


def words_of_page(text: str) -> str:
    """What a page in HTML says, which proxies answer with; other texts, and pages that say nothing, as they are."""
    words = unescape(_TAGS.sub(" ", text)).strip() if _PAGE.match(text) else ""
    return words or text


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
