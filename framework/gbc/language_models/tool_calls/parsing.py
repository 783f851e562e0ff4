r"""Calls of tools in what a model wrote, in the forms that models are trained on.

Read are the forms of `forms.py`, OpenAI's `tool_calls` with arguments as a text, plain JSON objects, also in a code
fence, and Python's calls in a list; of each form any number of calls. Nothing in thoughts counts. What begins like a
call and is not understood to its last character is an error: half of what was meant must not be done.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from framework.core.errors import DataError
from framework.core.serialization import JsonDict
from framework.core.text_files import parse_json, parse_json_at, refuse_half_characters
from framework.gbc.language_models.tool_calls.forms import Form, form_at
from framework.gbc.language_models.tool_calls.python_calls import parse_python_calls
from framework.gbc.language_models.tool_calls.thoughts import BETWEEN, begun_thought, end_of, thought_at

_PLAIN = re.compile(r"(?P<fence>(?:```|~~~)\w*\s*)?(?=\{|\[\s*\{)")
_PYTHON = re.compile(
    r"\[\s*[A-Za-z_][\w.]*\((?:\s*(?:\)|\*\*|[A-Za-z_]\w*\s*=)|[^\[\]]*\)\s*\]\s*\Z)"
    r"|[A-Za-z_][\w.]*\(\s*[A-Za-z_]\w*\s*=[^\n]*\)\s*\Z"
)
_NAMED = re.compile(r"\s*(?P<name>[A-Za-z_][\w.-]*)\s*(?=\{)")
"""How a message that is a call begins; the last of them where a tokenizer has removed Mistral's marks."""
_AMONG_WORDS = re.compile(r'\{\s*"(?:name|tool_name|function|tool_calls)"\s*:')
_FENCES = ("```", "~~~")
_NAMES = ("name", "tool_name")
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


def parse_tool_calls(text: str) -> tuple[CalledTool, ...]:
    """The calls in a model's answer, in their order; none where it is a message.

    Text beside marked calls is a remark; where a call has no mark, it is all that is said.

    Raises:
        DataError: it begins like a call and is none, or it cannot be understood as a whole.
    """
    calls: list[CalledTool] = []
    place, said, is_plain = begun_thought(text), "", False
    if named := _named_call(text[place:]):
        return (named,)
    while place < len(text):
        begin = end_of(BETWEEN, text, place)
        if not said and (unmarked := _unmarked(text, begin)):
            found, place = unmarked
            calls += found
            is_plain = True
            continue
        thought, marked = thought_at(text, place), form_at(text, place)
        stop = min(thought[0] if thought else len(text), marked[1].start() if marked else len(text))
        said += text[place:stop].strip()
        if thought and thought[0] == stop:
            place = thought[1]
        elif marked:
            found, place = _marked(text, *marked)
            calls += found
        else:
            break
    if is_plain and said:
        raise _malformed(text.strip(), "text beside it")
    if not calls:
        _refuse_call_among_words(said)
    return tuple(calls)


def call_of(value: object) -> CalledTool:
    """The call that a JSON object of any of the forms means.

    Raises:
        ValueError: it has no name, its arguments are no object, or something in it would be lost.
    """
    if not isinstance(value, Mapping):
        raise ValueError("not an object")
    call = cast("Mapping[str, object]", value)
    for wrapper in ("function", "function_call"):
        if isinstance(call.get(wrapper), Mapping):
            _refuse_unknown(call, {wrapper})
            call = cast("Mapping[str, object]", call[wrapper])
    names = [call[key] for key in _NAMES if key in call]
    if len(names) != 1 or not isinstance(names[0], str) or not names[0]:
        raise ValueError("no name" if len(names) < 2 else "two names")
    _refuse_unknown(call, {*_NAMES, *_ARGUMENTS})
    given = [_arguments(call[key]) for key in _ARGUMENTS if call.get(key) is not None]
    if any(each != given[0] for each in given):
        raise ValueError(f"{' and '.join(key for key in _ARGUMENTS if key in call)} differ")
    return CalledTool(name=names[0], arguments=given[0] if given else {})


def _refuse_unknown(call: Mapping[str, object], known: set[str]) -> None:
    if unknown := call.keys() - _BESIDE - known:
        raise ValueError(f"unknown {', '.join(sorted(unknown))}")


def _arguments(value: object) -> JsonDict:
    """Arguments as an object, also from the text in which OpenAI's interface gives them."""
    if isinstance(value, str):
        value = parse_json(value) if value.strip() else {}
    if not isinstance(value, dict):
        raise ValueError("arguments are no object")
    arguments = cast(JsonDict, value)
    refuse_half_characters(arguments)
    # NaN and Infinity, which Python reads as JSON and nothing else does, raise here.
    json.dumps(arguments, allow_nan=False)
    return arguments


def _named_call(text: str) -> CalledTool | None:
    """The call of a text that is a tool's name and its arguments, to the end."""
    name = _NAMED.match(text)
    try:
        value = parse_json(text[name.end() :]) if name else None
        return CalledTool(name=name["name"], arguments=_arguments(value)) if name and value else None
    except ValueError:
        return None


def _unmarked(text: str, begin: int) -> tuple[list[CalledTool], int] | None:
    """The calls without a mark that begin at a place, and where they end; None if none do."""
    if plain := _PLAIN.match(text, begin):
        values, place = _values(text, plain.end(), plain["fence"][:3] if plain["fence"] else "")
        return _calls(values, text, begin), place
    if not _PYTHON.match(text, begin):
        return None
    following = form_at(text, begin)
    end = following[1].start() if following else len(text)
    return _python_calls(text[begin:end]), end


def _marked(text: str, form: Form, mark: re.Match[str]) -> tuple[list[CalledTool], int]:
    """The calls behind a mark, and where they end."""
    if form.holds == "nothing":
        return [], mark.end()
    if form.holds == "untyped":
        raise _malformed(text[mark.start() :], "of a form whose values have no types; JSON is needed")
    if form.holds == "python":
        end = text.find(form.end, mark.end()) if form.end else -1
        following = form_at(text, mark.end())
        end = end if end >= 0 else following[1].start() if following else len(text)
        return _python_calls(text[mark.end() : end]), min(len(text), end + len(form.end))
    values, place = _values(text, mark.end(), form.end)
    return _calls(values, text, mark.start(), name=mark.groupdict().get("name")), place


def _python_calls(text: str) -> list[CalledTool]:
    try:
        return [CalledTool(name=name, arguments=_arguments(given)) for name, given in parse_python_calls(text)]
    except ValueError as error:
        raise _malformed(text, str(error)) from None


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
    while (start := end_of(BETWEEN, text, place)) < len(text):
        if close and text.startswith(close, start):
            return values, start + len(close)
        if text[start] not in "{[" or (not close and _is_mark(text, start)):
            break
        try:
            value, place = parse_json_at(text, start)
        except ValueError as error:
            raise _malformed(text[start:], str(error)) from None
        values.append(value)
    left = text[start:]
    if close and left and not _is_mark(text, start):
        raise _malformed(left, f"not JSON up to {close}")
    return values, start


def _is_mark(text: str, place: int) -> bool:
    """Whether another form, or a thought, begins at a place."""
    thought, marked = thought_at(text, place), form_at(text, place)
    return (thought is not None and thought[0] == place) or (marked is not None and marked[1].start() == place)


def _refuse_call_among_words(said: str) -> None:
    """A call in the middle of a message: to do it is as wrong as to leave it."""
    for found in _AMONG_WORDS.finditer(said):
        try:
            value, _ = parse_json_at(said, found.start())
            call = call_of(value)
        except ValueError:
            continue
        if call.arguments:
            raise _malformed(said[found.start() :], "text beside it")


def _malformed(text: str, reason: str) -> DataError:
    return DataError(f"malformed tool call {text[:_LONGEST]!r} ({reason})", hint=_HINT)
