"""Logs that other frameworks wrote: who said what, in JSON lines; `docs/traces.md` has the schema field by field."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from framework.core.errors import DataError
from framework.core.io import atomic_write
from framework.core.serialization import from_json, parse_object, to_json
from framework.core.text_files import BadLine, parse_json, read_json_lines, refuse_half_characters

Role = Literal["user", "agent", "tool"]

JsonObject = Mapping[str, object]
"""A parsed JSON object."""


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """A call that an agent made.

    Attributes:
        id: what the tool's message names; empty where none answers it by id.
        name: of the tool.
        arguments: as the agent wrote them, usually JSON.
    """

    id: str = ""
    name: str
    arguments: str = ""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message of a log.

    Attributes:
        agent: who said it: an agent's, a tool's or a user's name.
        role: what that is. Credit ends at what users say; it passes through tools to what they read.
        content: the text.
        reads: numbers of the earlier messages that it was made from; None where that is unknown: of an agent, then all
            earlier ones; of a tool, the call that it answers or else the latest agent's message. Users read nothing.
        tool_calls: of an agent, in their order.
        call: of a tool: the id of the call that it answers.
    """

    agent: str
    role: Role = "agent"
    content: str
    reads: tuple[int, ...] | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    call: str | None = None

    @property
    def text(self) -> str:
        """The content and the calls, a line each: what a model generated."""
        calls = (f"{call.name}({call.arguments})" for call in self.tool_calls)
        return "\n".join([*([self.content] if self.content.strip() else []), *calls])


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A label: the mistake that decided the run.

    Attributes:
        agent: who made it; None where that is unknown.
        step: number of its message; None where that is unknown.
        reason: in words.
    """

    agent: str | None = None
    step: int | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Log:
    """One run of a foreign system on one task. Messages are numbered from 0.

    Attributes:
        id: of the run.
        task: what the system was asked; empty where only the messages tell.
        messages: in the order in which they were said.
        prompts: system prompts by agent, as far as they are known.
        outputs: numbers of the messages that are the system's output; empty: the last agent's message that says more
            than the word that ends a chat.
        answer: the final answer, where it is known apart from the output.
        expected: the right one.
        correct: whether the run succeeded; None: not, unless `answer` is `expected`.
        mistake: the label, if there is one.

    Raises:
        DataError: no agent's message, a number that is not of an earlier message, or an answer to a call that nobody
            made.
    """

    id: str
    task: str = ""
    messages: tuple[Message, ...]
    prompts: dict[str, str] = field(default_factory=dict[str, str])
    outputs: tuple[int, ...] = ()
    answer: str | None = None
    expected: str | None = None
    correct: bool | None = None
    mistake: Mistake | None = None

    def __post_init__(self) -> None:
        count = len(self.messages)
        if all(message.role != "agent" for message in self.messages):
            raise DataError(f"log {self.id!r} has no agent's message", hint='give some the role "agent"')
        calls: set[str] = set()
        for number, message in enumerate(self.messages):
            for read in message.reads or ():
                if not 0 <= read < number:
                    problem = f"log {self.id!r}: message {number} reads {read}"
                    raise DataError(problem, hint="name earlier messages by their numbers, from 0")
            if message.tool_calls and message.role != "agent":
                problem = f"log {self.id!r}: message {number} of a {message.role} has tool calls"
                raise DataError(problem, hint="leave them to agents")
            if message.call is not None and message.call not in calls:
                problem = f"log {self.id!r}: message {number} answers the call {message.call!r}, which nobody made"
                raise DataError(problem, hint="give the id of an earlier call, or leave it out")
            calls |= {call.id for call in message.tool_calls}
        for output in self.outputs:
            if not 0 <= output < count or self.messages[output].role == "user":
                problem = f"log {self.id!r}: the output is message {output} of {count}"
                raise DataError(problem, hint="name messages of agents or tools by their numbers, from 0")

    @property
    def output_messages(self) -> tuple[int, ...]:
        """Numbers of the messages that are the output."""
        said = [number for number, message in enumerate(self.messages) if message.role == "agent"]
        more = [number for number in said if _says_more(self.messages[number].text)]
        return self.outputs or ((more or said)[-1],)

    @property
    def failed(self) -> bool:
        """Whether there is something to attribute: the run is not known to have succeeded."""
        if self.correct is not None:
            return not self.correct
        return self.answer is None or self.expected is None or self.answer.strip() != self.expected.strip()


def _says_more(text: str) -> bool:
    """Whether a message says anything beside the word that ends a chat, as AutoGen's agents do."""
    return bool(re.sub(r"\W|_|TERMINATE", "", text))


def log_to_line(log: Log) -> str:
    """A log as one line of JSON, without the line's end."""
    return json.dumps(to_json(log))


def log_from_line(line: str) -> Log:
    """The log of a line; fields that have a default may be left out.

    Raises:
        ValueError: not JSON, half of a character, or a field that is missing, unknown or of another type.
        DataError: what `Log` finds.
    """
    fields = parse_object(line)
    refuse_half_characters(fields)
    return from_json(Log, fields, allow_missing=True)


def json_object(value: object) -> JsonObject | None:
    """A parsed JSON value if it is an object, otherwise None."""
    return cast(JsonObject, value) if isinstance(value, dict) else None


def parse_log(text: str | bytes) -> object:
    """The JSON value of a text.

    Raises:
        ValueError: there is none, or half of a character in it.
    """
    value: object = parse_json(text)
    refuse_half_characters(value)
    return value


def write_logs(path: str | Path, logs: Iterable[Log]) -> int:
    """Writes logs as JSON lines, a whole file or none; returns their number."""
    count = 0
    with atomic_write(Path(path)) as stream:
        for log in logs:
            stream.write(log_to_line(log).encode() + b"\n")
            count += 1
    return count


def read_logs(
    path: str | Path, *, skip_bad_lines: bool = False, parse: Callable[[str, int], Log] | None = None
) -> tuple[list[Log], list[BadLine]]:
    """The logs of a file of JSON lines.

    Args:
        path: the file.
        skip_bad_lines: go on past malformed lines; otherwise they are an error.
        parse: a line and its number, from 1, to its log; by default `log_from_line`.

    Raises:
        DataError: no such file, or malformed lines, a second log of one id among them: their number, and the first
            with its problem.
    """
    logs: dict[str, Log] = {}

    def parse_new(line: str, number: int) -> Log:
        log = parse(line, number) if parse else log_from_line(line)
        if log.id in logs:
            raise ValueError(f"a second log {log.id!r}: give every log an id of its own")
        logs[log.id] = log
        return log

    return read_json_lines(path, parse_new, skip_bad_lines=skip_bad_lines)
