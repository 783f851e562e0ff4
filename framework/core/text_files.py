r"""Text that others wrote: files, lines, JSON and YAML, read in one way by everything that reads them.

Text is UTF-8. A byte order mark at the beginning, lines that end in \r\n and empty lines at the end of a file mean
nothing. Text in another encoding, a JSON object that says two things under one key, and half of a character (JSON's
`\ud83d` without the other half, which nothing can encode) are refused where they are met, with the file and the line.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from yaml.constructor import ConstructorError

from framework.core.errors import ConfigError, DataError, FrameworkError

RecordT = TypeVar("RecordT")
_HALF = re.compile("[\ud800-\udfff]")
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LONGEST_KEY = 40
_MOST_VALUES = 1_000_000
"""Of a YAML file."""


@dataclass(frozen=True, kw_only=True)
class BadLine:
    """A line that is not a record.

    Attributes:
        number: of the line, from 1.
        problem: what is wrong with it.
    """

    number: int
    problem: str


def decode_text(data: bytes) -> str:
    """UTF-8 as text, without a byte order mark.

    Raises:
        ValueError: another encoding; names the line, from 1, where there are several.
    """
    if data.startswith(_UTF_16):
        raise ValueError("UTF-16, not UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        place = f" in line {line}" if b"\n" in data.strip() else ""
        raise ValueError(f"not UTF-8 (byte 0x{data[error.start]:02x}{place})") from None
    if "\0" in text:
        raise ValueError("not UTF-8 but UTF-16 or no text at all (it has zero bytes)")
    return text


def read_text(
    path: str | Path, *, hint: str = "give a text file in UTF-8", error: type[FrameworkError] = DataError
) -> str:
    """The text of a file.

    Args:
        path: the file.
        hint: of the error.
        error: what is raised.

    Raises:
        FrameworkError: no such file, or another encoding.
    """
    try:
        return decode_text(Path(path).read_bytes())
    except OSError as problem:
        raise error(f"{path} cannot be read ({problem.strerror})", hint=hint) from None
    except ValueError as problem:
        raise error(f"{path} is {problem}", hint="save it as UTF-8") from None


def read_lines(path: str | Path, *, hint: str = "give a text file in UTF-8 with a value in each line") -> list[str]:
    """The lines of a file in which the number of a line means something, without white space around them.

    Empty lines at the end are passed over.

    Raises:
        DataError: no such file, another encoding, nothing in it, or an empty line in the middle.
    """
    lines = [line.strip() for line in re.split("\r\n|\r|\n", read_text(path, hint=hint))]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise DataError(f"{path} is empty", hint=hint)
    if "" in lines:
        raise DataError(f"{path}, line {lines.index('') + 1} is empty", hint=hint)
    return lines


def numbered_lines(path: str | Path, *, hint: str = "give a file of JSON lines") -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their numbers, from 1, one at a time; empty ones are passed over.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if number == 1 and line.startswith(_UTF_16):
                    raise DataError(f"{path} is UTF-16, not UTF-8", hint="save it as UTF-8")
                line = line.removeprefix(codecs.BOM_UTF8).strip() if number == 1 else line.strip()
                if line:
                    yield number, line
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})", hint=hint) from None


def read_json_lines(
    path: str | Path, parse: Callable[[str, int], RecordT], *, skip_bad_lines: bool = False
) -> tuple[list[RecordT], list[BadLine]]:
    """The records of a file of JSON lines, and the lines that are none.

    Args:
        path: the file.
        parse: a line and its number, from 1, to its record; raises ValueError or DataError.
        skip_bad_lines: go on past malformed lines; otherwise they are an error.

    Raises:
        DataError: no such file, or malformed lines: their number, and the first with its problem.
    """
    records: list[RecordT] = []
    bad: list[BadLine] = []
    for number, line in numbered_lines(path):
        try:
            records.append(parse(decode_text(line), number))
        except (ValueError, DataError) as error:
            bad.append(BadLine(number=number, problem=str(error)))
    if bad and not skip_bad_lines:
        problem = f"{path}: {len(bad)} malformed lines, the first is line {bad[0].number} ({bad[0].problem})"
        raise DataError(problem, hint="correct them, or ask to skip bad lines")
    return records, bad


def parse_json(text: str | bytes) -> Any:
    """The JSON value of a text.

    Raises:
        ValueError: not JSON, another encoding, or two values of one key that differ.
    """
    text = decode_text(text) if isinstance(text, bytes) else text
    value, end = parse_json_at(text, len(text) - len(text.lstrip()))
    if text[end:].strip():
        raise ValueError(f"not JSON (more after its end, at character {end})")
    return value


def parse_json_at(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that begins at a place of a text, and where it ends; errors as in `parse_json`."""
    try:
        return _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error})") from None
    except RecursionError:
        raise ValueError("not JSON that can be read (nested too deeply)") from None


def parse_yaml(text: str, source: str, *, hint: str = "give a YAML file") -> Any:
    """The YAML value of a text.

    Args:
        text: the text.
        source: what to call it in messages.
        hint: of the error.

    Raises:
        ConfigError: not YAML, a key that stands twice, or half of a character; names the line.
    """
    try:
        return yaml.load(text, Loader=_YamlLoader)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        problem = ", ".join(filter(None, (error.context, error.problem)))
        raise ConfigError(f"{source} cannot be read ({line}{problem})", hint=hint) from None
    except yaml.reader.ReaderError as error:
        # Its own message calls every text "<unicode string>".
        sign, line = ascii(chr(int(error.character)))[1:-1], text.count("\n", 0, int(error.position)) + 1
        raise ConfigError(
            f"{source} cannot be read (line {line}: the sign {sign} is none of a text)", hint=hint
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{source} cannot be read ({error})", hint=hint) from None
    except RecursionError:
        raise ConfigError(f"{source} is nested too deeply", hint=hint) from None


def read_yaml(path: str | Path, *, hint: str = "give a YAML file") -> Any:
    """The YAML value of a file.

    Raises:
        ConfigError: no such file, another encoding, or what `parse_yaml` finds.
    """
    return parse_yaml(read_text(path, hint=hint, error=ConfigError), str(path), hint=hint)


def half_character_in(value: object) -> str | None:
    """Where a parsed JSON value has half of a character, which cannot be encoded, in words; None if it has none."""
    waiting: list[tuple[str, object]] = [("", value)]
    while waiting:
        path, each = waiting.pop()
        if isinstance(each, str):
            if found := _HALF.search(each):
                where = f" of {path}" if path else ""
                return f"half of a character (\\u{ord(found[0]):x}) at place {found.start()}{where}"
        elif isinstance(each, Mapping):
            for key, item in cast("Mapping[object, object]", each).items():
                name = ascii(str(key)[:_LONGEST_KEY])[1:-1]
                waiting += [(f"{path}.{name}" if path else name, item), (f"the key {name!r}", key)]
        elif isinstance(each, list | tuple):
            waiting += [(f"{path}[{number}]", item) for number, item in enumerate(cast("list[object]", each))]
    return None


def refuse_half_characters(value: object) -> None:
    """Raises ValueError if a parsed JSON value has half of a character, which cannot be encoded."""
    if (found := half_character_in(value)) is not None:
        raise ValueError(found)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; what stands under a key first must not be lost."""
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found and found[key] != value:
            raise ValueError(f"not JSON that can be read (two values of {key[:_LONGEST_KEY]!r})")
        found[key] = value
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _num_values(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a YAML node stands for, each alias counted with all that it stands for.

    Args:
        node: complete.
        known: of the nodes below, by their identity.
    """
    if id(node) not in known:
        below: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            below = node.value
        elif isinstance(node, yaml.MappingNode):
            below = [each for pair in node.value for each in pair]
        known[id(node)] = 1 + sum(_num_values(each, known) for each in below)
    return known[id(node)]


class _YamlLoader(yaml.SafeLoader):
    """Plain values alone; what would be lost or cannot be encoded is an error."""

    # The stubs say that an index is a number; of a document it is None, of a mapping's value its key.
    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        # The stubs leave the parser's and the constructor's methods untyped.
        parser = cast(Any, self)
        alias: Any = parser.peek_event() if parser.check_event(yaml.AliasEvent) else None
        node = super().compose_node(parent, index)
        # Anchored nodes are known from their first line on, and complete with their last.
        if alias is not None and node is not None and node.end_mark is None:
            problem = f"the alias {alias.anchor!r} stands in what it stands for"
            raise ConstructorError(None, None, problem, alias.start_mark)
        return node

    def construct_document(self, node: yaml.Node) -> Any:
        # A few lines of aliases of aliases are billions of values for whoever walks over them.
        if _num_values(node, {}) > _MOST_VALUES:
            raise ConstructorError(None, None, f"aliases stand for more than {_MOST_VALUES:,} values", node.start_mark)
        return cast(Any, super()).construct_document(node)

    # The stubs say that an anchor is a dict.
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                name = (str(key.tag), str(key.value))
                if name in seen:
                    raise ConstructorError(None, None, f"the key {key.value!r} stands twice", key.start_mark)
                seen.add(name)
        return node

    # Of a mapping with the key "=", too.
    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if not _HALF.search(value):
            return value
        try:
            # YAML reads the two halves of a character that JSON escapes as two.
            return value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise ConstructorError(None, None, half_character_in(value), node.start_mark) from None
