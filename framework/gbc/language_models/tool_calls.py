"""Calls of tools in what a model wrote, in the forms that models are trained on.

Read are Hermes' and Qwen's `<tool_call>` blocks, Llama's `parameters`, `<function=NAME>` and `<|python_tag|>`,
Mistral's `[TOOL_CALLS]`, OpenAI's `tool_calls` with arguments as a text, and plain JSON objects, also in a code fence;
of each form any number of calls. Nothing between `<think>` and `</think>` counts. What begins like a call and is not
understood to its last character is an error: half of what was meant must not be done.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from framework.core.errors import DataError
from framework.core.serialization import JsonDict
from framework.core.text_files import parse_json, parse_json_at, refuse_half_characters

_THOUGHT_BEGINS, _THOUGHT_ENDS = re.compile("<think(?:ing)?>"), re.compile("</think(?:ing)?>")
_MARK = re.compile(r"<think(?:ing)?>|<tool_call>|<function=(?P<name>[^>\s]+)>|\[TOOL_CALLS\]|<\|python_tag\|>")
_CLOSES = {"<tool_call>": "</tool_call>", "<function": "</function>"}
_PLAIN = re.compile(r"(?P<fence>```\w*\s*)?(?=\{|\[\s*\{)")
"""How a message that is a call begins."""
_BETWEEN = re.compile(r"[\s;,]*")
_ARGUMENTS = ("arguments", "parameters", "input")
_BESIDE = {"id", "type", "index", "call_id", "tool_call_id"}
"""Keys of a call that say nothing about what is to be done."""
_HINT = 'answer with {"name": "TOOL", "arguments": {...}}'
_LONGEST = 80


@dataclass(frozen=True, kw_only=True)
class CalledTool:
    """A call of a tool.

    Attributes:
        name: of the tool.
        arguments: by name, JSON values.
    """

    name: str
    arguments: JsonDict


def without_thoughts(text: str) -> str:
    """What a model says in an answer: without its thoughts, and without white space at the ends.

    Thoughts that do not end are all that follows. Where only their end is there, since the template began them, they
    are all before it.
    """
    text, said = text[_begun_thought(text) :], ""
    while begin := _THOUGHT_BEGINS.search(text):
        said += text[: begin.start()]
        text = text[_thought_end(text, begin.end()) :]
    return (said + text).strip()


def parse_tool_calls(text: str) -> tuple[CalledTool, ...]:
    """The calls in a model's answer, in their order; none where it is a message.

    Text beside marked calls is a remark; where a call has no mark, it is all that is said.

    Raises:
        DataError: it begins like a call and is none, or it cannot be understood as a whole.
    """
    calls: list[CalledTool] = []
    place, said, is_plain = _begun_thought(text), "", False
    while place < len(text):
        begin = _end_of(_BETWEEN, text, place)
        if not said and (plain := _PLAIN.match(text, begin)):
            values, place = _values(text, plain.end(), "```" if plain["fence"] else "")
            calls += _calls(values, text, begin)
            is_plain = True
            continue
        mark = _MARK.search(text, place)
        said += text[place : mark.start() if mark else None].strip()
        if mark is None:
            break
        if mark[0].startswith("<think"):
            place = _thought_end(text, mark.end())
            continue
        values, place = _values(text, mark.end(), _CLOSES.get("<function" if mark["name"] else mark[0], ""))
        calls += _calls(values, text, mark.start(), name=mark["name"])
    if is_plain and said:
        raise _malformed(text.strip(), "text beside it")
    return tuple(calls)


def call_of(value: object) -> CalledTool:
    """The call that a JSON object of any of the forms means.

    Raises:
        ValueError: it has no name, its arguments are no object, or something in it would be lost.
    """
    if not isinstance(value, Mapping):
        raise ValueError("not an object")
    call = cast("Mapping[str, object]", value)
    beside = _BESIDE
    if isinstance(call.get("function"), Mapping):
        if unknown := call.keys() - beside - {"function"}:
            raise ValueError(f"unknown {', '.join(sorted(unknown))}")
        call = cast("Mapping[str, object]", call["function"])
    name = call.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError("no name")
    if unknown := call.keys() - beside - {"name", *_ARGUMENTS}:
        raise ValueError(f"unknown {', '.join(sorted(unknown))}")
    given = [_arguments(call[key]) for key in _ARGUMENTS if call.get(key) is not None]
    if any(each != given[0] for each in given):
        raise ValueError(f"{' and '.join(key for key in _ARGUMENTS if key in call)} differ")
    return CalledTool(name=name, arguments=given[0] if given else {})


def _arguments(value: object) -> JsonDict:
    """Arguments as an object, also from the text in which OpenAI's interface gives them."""
    if isinstance(value, str):
        value = parse_json(value) if value.strip() else {}
    if not isinstance(value, dict):
        raise ValueError("arguments are no object")
    arguments = cast(JsonDict, value)
    refuse_half_characters(arguments)
    return arguments


def _calls(values: list[object], text: str, start: int, *, name: str | None = None) -> list[CalledTool]:
    """The calls that JSON values mean.

    Args:
        values: objects, or lists of them.
        text: the answer, for messages.
        start: where the calls begin in it.
        name: of the tool, where the values are its arguments alone.
    """
    try:
        if name is not None:
            if len(values) != 1:
                raise ValueError("not one object of arguments")
            return [CalledTool(name=name, arguments=_arguments(values[0]))]
        found: list[CalledTool] = []
        for value in values:
            listed = cast("dict[str, object]", value).get("tool_calls") if isinstance(value, dict) else value
            objects: list[object] = cast("list[object]", listed) if isinstance(listed, list) else [value]
            found += map(call_of, objects)
        if not found:
            raise ValueError("no call in it")
        return found
    except ValueError as error:
        raise _malformed(text[start:], str(error)) from None


def _values(text: str, place: int, close: str) -> tuple[list[object], int]:
    """The JSON values at a place of a text, and where they and the mark that closes them end.

    Args:
        text: the answer.
        place: where the first value begins.
        close: the mark at their end, which an answer that was cut off lacks; empty if there is none.
    """
    values: list[object] = []
    while (start := _end_of(_BETWEEN, text, place)) < len(text):
        if close and text.startswith(close, start):
            return values, start + len(close)
        if text[start] not in "{[" or (not close and _MARK.match(text, start)):
            break
        try:
            value, place = parse_json_at(text, start)
        except ValueError as error:
            raise _malformed(text[start:], str(error)) from None
        values.append(value)
    left = text[start:]
    if close and left and not _MARK.match(left):
        raise _malformed(left, f"not JSON up to {close}")
    return values, start


def _begun_thought(text: str) -> int:
    """Where a thought ends that the template began; 0 if there is none."""
    begin, end = _THOUGHT_BEGINS.search(text), _THOUGHT_ENDS.search(text)
    if end is None or (begin is not None and begin.start() < end.start()):
        return 0
    starts = [0, *(mark.end() for mark in _MARK.finditer(text, 0, end.start()))]
    # Not where its end is a part of what a call says.
    return 0 if any(_json_end(text, _end_of(_BETWEEN, text, start)) > end.start() for start in starts) else end.end()


def _json_end(text: str, start: int) -> int:
    """Where the JSON value ends that begins at a place; 0 if none does."""
    try:
        return parse_json_at(text, start)[1]
    except ValueError:
        return 0


def _thought_end(text: str, place: int) -> int:
    """Where a thought that begins at a place ends; the text's end where it does not."""
    end = _THOUGHT_ENDS.search(text, place)
    return end.end() if end else len(text)


def _end_of(pattern: re.Pattern[str], text: str, place: int) -> int:
    """Where a pattern that may be empty ends, from a place on."""
    found = pattern.match(text, place)
    return found.end() if found else place


def _malformed(text: str, reason: str) -> DataError:
    return DataError(f"malformed tool call {text[:_LONGEST]!r} ({reason})", hint=_HINT)
