"""Logs of any known form from a file or a folder; what form it is, is seen from the first record."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from framework.core.errors import ConfigError, DataError
from framework.core.serialization import from_json
from framework.core.text_files import BadLine, decode_text, numbered_lines
from framework.gbc.logs.forms import (
    anthropic,
    autogen,
    crewai,
    langchain,
    openai,
    opentelemetry,
    responses,
    tau_bench,
    who_when,
)
from framework.gbc.logs.schema import Log, json_object, parse_log

Value = object
"""Parsed JSON."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form of logs.

    Attributes:
        what: in words.
        matches: whether a value is a record of it.
        logs_of: the logs of a record; also given an id for those that have none of their own.
        named_agents: the same, where who speaks as a user may be an agent: also given the agents' names, or None.
        put_together: what records belong together; by default each is for itself.
    """

    what: str
    matches: Callable[[Value], bool]
    logs_of: Callable[[Value, str], list[Log]] | None = None
    named_agents: Callable[[Value, str, Sequence[str] | None], list[Log]] | None = None
    put_together: Callable[[Sequence[Value]], list[Value]] | None = None


def _is_log(value: Value) -> bool:
    messages = openai.objects_of((json_object(value) or {}).get("messages"))
    return bool(messages) and all("agent" in each for each in messages)


def _log_of(value: Value, id: str) -> list[Log]:
    fields = json_object(value)
    if fields is None:
        raise ValueError("not a JSON object")
    return [from_json(Log, fields, allow_missing=True)]


FORMS: dict[str, Form] = {
    "log": Form(what="the schema of docs/traces.md", matches=_is_log, logs_of=_log_of),
    "who_when": Form(
        what="cases of Who&When",
        matches=who_when.is_case,
        logs_of=lambda value, id: [who_when.log_of_case(value, id=id)],
    ),
    "opentelemetry": Form(
        what="OpenTelemetry's spans of generative AI (OTLP JSON)",
        matches=opentelemetry.is_opentelemetry,
        logs_of=opentelemetry.logs_of_opentelemetry,
        put_together=opentelemetry.put_together,
    ),
    "openai_agents": Form(
        what="traces of OpenAI's Agents SDK",
        matches=responses.is_agents_trace,
        logs_of=responses.logs_of_agents_trace,
        put_together=responses.put_together,
    ),
    "tau2_bench": Form(
        what="simulations of tau2-bench", matches=tau_bench.is_tau2_bench, logs_of=tau_bench.logs_of_tau2_bench
    ),
    "tau_bench": Form(
        what="episodes of tau-bench", matches=tau_bench.is_tau_bench, logs_of=tau_bench.logs_of_tau_bench
    ),
    "crewai": Form(what="runs of CrewAI", matches=crewai.is_crewai, logs_of=crewai.logs_of_crewai),
    "autogen": Form(
        what="messages of AutoGen 0.4", matches=autogen.is_autogen_04, named_agents=autogen.logs_of_autogen_04
    ),
    "langchain": Form(
        what="messages of LangChain or LangGraph",
        matches=langchain.is_langchain,
        named_agents=langchain.logs_of_langchain,
    ),
    "responses": Form(
        what="items or responses of OpenAI's Responses API",
        matches=responses.is_responses,
        logs_of=responses.logs_of_responses,
        put_together=responses.chained,
    ),
    "anthropic": Form(
        what="conversations with Anthropic's Messages API",
        matches=anthropic.is_anthropic,
        logs_of=anthropic.logs_of_anthropic,
    ),
    "autogen_0.2": Form(
        what="chats of AutoGen 0.2 or AG2", matches=autogen.is_autogen_02, named_agents=autogen.logs_of_autogen_02
    ),
    "openai": Form(
        what="messages of OpenAI's chat completions", matches=openai.is_openai, named_agents=openai.logs_of_openai
    ),
}
"""By name; where several match, the first is meant."""

AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class LogFile:
    """What a file or a folder holds.

    Attributes:
        form: its name in `FORMS`.
        logs: in their order.
        bad: what is not a log; a folder's files are numbered from 1.
    """

    form: str
    logs: list[Log]
    bad: list[BadLine]


def form_of(value: Value) -> str | None:
    """The name of the form that a record has; None where no form is known that has it."""
    return next((name for name, form in FORMS.items() if form.matches(value)), None)


def read_form(
    path: str | Path, form: str = AUTO, *, skip_bad: bool = False, agents: Sequence[str] | None = None
) -> LogFile:
    """The logs of a file, or of a folder's `*.json` and `*.jsonl`.

    A file is one JSON value, a list of records, or lines with a record each. Logs without an id of their own have the
    number of their record, from 1, or the name of the `*.json` that holds nothing else.

    Args:
        path: the file or the folder.
        form: a name of `FORMS`, or `auto`: that of the first record.
        skip_bad: list what is not a log; otherwise it is an error.
        agents: names of the agents, where the form lets them speak as users; None: by the form's rule.

    Raises:
        ConfigError: another form, or names that nobody has.
        DataError: no such file, a form that nobody knows, or malformed records: their number, and the first.
    """
    if form not in (AUTO, *FORMS):
        raise ConfigError(f"form {form!r}", hint=f"use one of {', '.join((AUTO, *FORMS))}")
    path = Path(path)
    records, bad = _records(path)
    if form == AUTO:
        form = _seen(path, records, bad)
    known = FORMS[form]
    expanded = [each for record in records for each in _in_lists(record, known)]
    if known.put_together is not None:
        together = known.put_together([each.value for each in expanded])
        expanded = [_Record(number=number, id=str(number), value=value) for number, value in enumerate(together, 1)]
    logs: dict[str, Log] = {}
    for record in expanded:
        try:
            for log in _convert(known, record, agents):
                if log.id in logs:
                    raise ValueError(f"a second log {log.id!r}: give every log an id of its own")
                logs[log.id] = log
        except (ValueError, DataError) as error:
            bad.append(BadLine(number=record.number, problem=record.named(str(error))))
    _refuse_unknown_names(agents or (), logs.values())
    bad.sort(key=lambda each: each.number)
    if bad and not skip_bad:
        problem = f"{path}: {len(bad)} malformed records, the first is {bad[0].number} ({bad[0].problem})"
        raise DataError(problem, hint="correct them, or ask to skip bad ones")
    return LogFile(form=form, logs=list(logs.values()), bad=bad)


def _refuse_unknown_names(agents: Sequence[str], logs: Collection[Log]) -> None:
    """Raises ConfigError if an agent that was named says nothing in any log: who was meant would count as a user."""
    speakers = {message.agent for log in logs for message in log.messages}
    unknown = [name for name in agents if name not in speakers]
    if unknown and logs:
        hint = f"those who speak are {', '.join(sorted(speakers))}"
        raise ConfigError(f"nobody is called {', '.join(map(repr, unknown))} in these logs", hint=hint)


@dataclass(frozen=True, kw_only=True)
class _Record:
    """A value, where it stands and what to call it."""

    number: int
    id: str
    value: Value
    file: str = ""

    def named(self, problem: str) -> str:
        return f"{self.file}: {problem}" if self.file else problem


def _convert(form: Form, record: _Record, agents: Sequence[str] | None) -> list[Log]:
    if form.logs_of is not None and agents is not None:
        raise ValueError("in this form nobody but agents speaks as an agent: leave out --agents")
    try:
        if form.named_agents is not None:
            return form.named_agents(record.value, record.id, agents)
        assert form.logs_of is not None
        return form.logs_of(record.value, record.id)
    except RecursionError:
        # The parser goes deeper than functions do.
        raise ValueError("nested too deeply") from None


def _seen(path: Path, records: Sequence[_Record], bad: Sequence[BadLine]) -> str:
    if not records:
        problem = f"{bad[0].number} ({bad[0].problem})" if bad else "it is empty"
        raise DataError(f"{path} has no record: {problem}", hint="give JSON, or JSON lines")
    first = records[0].value
    listed = openai.listed(first)
    found = form_of(first) or (form_of(listed[0]) if listed else None)
    if found is None:
        keys = json_object(first)
        shown = f"an object with {', '.join(keys)}" if keys else str(first)
        known = "\n".join(f"  {name}: {form.what}" for name, form in FORMS.items())
        raise DataError(f"{path}: its first record is of no known form ({shown[:120]})", hint=f"known are\n{known}")
    return found


def _in_lists(record: _Record, form: Form) -> list[_Record]:
    """A record, or those of a list of records."""
    listed = openai.listed(record.value)
    if not listed or form.matches(record.value) or not all(map(form.matches, listed)):
        return [record]
    ids = [f"{record.id}-{n}" if record.file else str(n) for n in range(1, len(listed) + 1)]
    return [
        _Record(number=n, id=id, value=each, file=record.file)
        for n, (id, each) in enumerate(zip(ids, listed, strict=True), 1)
    ]


def _records(path: Path) -> tuple[list[_Record], list[BadLine]]:
    """The values of a file or of a folder's files, and what is not JSON."""
    if not path.is_dir():
        found, wrong = _values(path)
        if path.suffix == ".json" and len(found) == 1:
            found = [replace(found[0], id=path.stem)]
        return found, wrong
    files = sorted(
        (file for file in path.iterdir() if file.suffix in (".json", ".jsonl")),
        key=lambda file: (len(file.stem), file.name),
    )
    if not files:
        raise DataError(f"{path} has no *.json and no *.jsonl", hint="give a file, or a folder of them")
    records: list[_Record] = []
    bad: list[BadLine] = []
    for number, file in enumerate(files, 1):
        found, wrong = _values(file)
        for each in found:
            id = f"{file.stem}-{each.number}" if len(found) > 1 else file.stem
            records.append(_Record(number=number, id=id, value=each.value, file=file.name))
        bad += [BadLine(number=number, problem=f"{file.name}: {each.problem}") for each in wrong]
    return records, bad


def _values(path: Path) -> tuple[list[_Record], list[BadLine]]:
    """The one value of a file, or one a line."""
    lines = numbered_lines(path, hint="give a file of JSON or JSON lines")
    records: list[_Record] = []
    bad: list[BadLine] = []
    for number, line in lines:
        try:
            records.append(_Record(number=number, id=str(number), value=parse_log(decode_text(line))))
        except ValueError as error:
            if not records and not bad and (whole := _whole(path)) is not None:
                return [_Record(number=1, id="1", value=whole[0])], []
            bad.append(BadLine(number=number, problem=str(error)))
    return records, bad


def _whole(path: Path) -> tuple[Value] | None:
    """The value of a file that is JSON over several lines; None if it is not."""
    try:
        return (parse_log(path.read_bytes()),)
    except ValueError:
        return None
