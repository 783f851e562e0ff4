"""Thoughts in what a model wrote: they are neither said nor done."""

import re
from dataclasses import dataclass

from framework.core.text_files import parse_json_at

_TAGS = "(?:think|thinking|thought|thoughts|reasoning|seed:think)"
BETWEEN = re.compile(r"[\s;,\ufeff]*")
"""What may stand between calls, or before the first."""

_OPENS = re.compile(r"(?<=[>\]\n])\s*(?=[{\[])")
"""Where a call may begin, in front of its JSON."""


@dataclass(frozen=True, kw_only=True)
class Thoughts:
    """How thoughts are marked.

    Attributes:
        begin: their first mark.
        end: their last.
    """

    begin: re.Pattern[str]
    end: re.Pattern[str]


_FORMS = (
    # Qwen, DeepSeek, Hermes, Seed-OSS; Mistral; Command A.
    Thoughts(
        begin=re.compile(rf"<{_TAGS}>|\[THINK\]|<\|START_THINKING\|>", re.IGNORECASE),
        end=re.compile(rf"</{_TAGS}>|\[/THINK\]|<\|END_THINKING\|>", re.IGNORECASE),
    ),
    # gpt-oss.
    Thoughts(
        begin=re.compile(r"<\|channel\|>analysis<\|message\|>"),
        end=re.compile(r"<\|end\|>|(?=<\|start\|>|<\|channel\|>)"),
    ),
)
_TEMPLATES = _FORMS[0]
"""Those whose beginning a template may write, so that the answer has their end alone."""


def thought_at(text: str, place: int) -> tuple[int, int] | None:
    """The next thought in a text from a place on: where it begins and ends; None if there is none.

    Thoughts that do not end are all that follows. Where an end follows that nothing has begun, they go on to there.
    """
    found = [(begin.start(), begin.end(), form) for form in _FORMS if (begin := form.begin.search(text, place))]
    if not found:
        return None
    start, begun, form = min(found, key=lambda each: each[0])
    end = form.end.search(text, begun)
    return start, begun_thought(text, end.end()) if end else len(text)


def begun_thought(text: str, place: int = 0) -> int:
    """Where a thought ends that was begun before a place, by a template or around another; the place if none was."""
    while end := _TEMPLATES.end.search(text, place):
        begin = _TEMPLATES.begin.search(text, place, end.start())
        starts = [place, *(found.end() for found in _OPENS.finditer(text, place, end.start()))]
        # Not where its end is a part of what a call says.
        if begin or any(_json_end(text, end_of(BETWEEN, text, start)) > end.start() for start in starts):
            break
        place = end.end()
    return place


def without_thoughts(text: str) -> str:
    """What a model says in an answer: without its thoughts, and without white space at the ends."""
    place, said = begun_thought(text), ""
    while thought := thought_at(text, place):
        said += text[place : thought[0]]
        place = thought[1]
    return (said + text[place:]).strip()


def end_of(pattern: re.Pattern[str], text: str, place: int) -> int:
    """Where a pattern that may be empty ends, from a place on.

    Args:
        pattern: of what is passed over.
        text: where it may stand.
        place: in the text.
    """
    found = pattern.match(text, place)
    return found.end() if found else place


def _json_end(text: str, start: int) -> int:
    """Where the JSON value ends that begins at a place; 0 if none does."""
    try:
        return parse_json_at(text, start)[1]
    except ValueError:
        return 0
