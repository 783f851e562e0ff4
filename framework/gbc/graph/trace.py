"""Traces: who saw which token blocks and said what, and their JSON lines."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from framework.core.io import atomic_write
from framework.core.serialization import JsonDict, from_json, parse_object, to_json
from framework.core.text_files import BadLine, read_json_lines

Span = tuple[int, int]
"""Start and end, the end excluded."""

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Block:
    """A part of an agent's input.

    Attributes:
        source: the step whose output it is; for the prompt, the agent's own step.
        kind: `prompt` or `message`.
        text: of the block, without white space at its ends.
        chars: where it lies in the input text.
        tokens: where it lies in the input's token ids; (0, 0) where there are none, as for models on a server.
    """

    source: str
    kind: Literal["prompt", "message"]
    text: str
    chars: Span
    tokens: Span


@dataclass(frozen=True, kw_only=True)
class Step:
    """One run of a node.

    Attributes:
        name: of the step: the node's, in a loop with its round (`review@2`).
        node: as declared in the graph.
        kind: what the node is.
        model: the agent's model; None for tools and user turns.
        input_text: the whole input as the model saw it, chat template included; empty for a user turn.
        input_ids: its tokens; empty where the tokens are unknown.
        input_spans: where each input token lies in `input_text`; empty spans for tokens without text.
        blocks: the parts of the input, in their order in it.
        controls: steps whose outputs decided that this one runs.
        output: the text; of an agent, what its tokens decode to.
        output_ids: its tokens, with the end token where the model gave one; empty where unknown.
        output_spans: where each output token lies in `output`; (n, n) for tokens without text.
        finish: `stop`: the model ended; `length`: it reached the bound; `given`: a user turn, a tool, or an output
            that the caller set.
    """

    name: str
    node: str
    kind: Literal["user", "tool", "agent"]
    model: str | None
    input_text: str
    input_ids: tuple[int, ...]
    input_spans: tuple[Span, ...]
    blocks: tuple[Block, ...]
    controls: tuple[str, ...]
    output: str
    output_ids: tuple[int, ...]
    output_spans: tuple[Span, ...]
    finish: Literal["stop", "length", "given"]

    @property
    def messages(self) -> tuple[Block, ...]:
        """The blocks that come from other steps."""
        return tuple(block for block in self.blocks if block.kind == "message")


def given_step(
    name: str,
    *,
    node: str,
    kind: Literal["user", "tool", "agent"],
    output: str,
    input_text: str = "",
    blocks: tuple[Block, ...] = (),
    model: str | None = None,
    controls: tuple[str, ...] = (),
) -> Step:
    """A step whose output no model makes: a user's, a tool's, or an agent's that is given. Its tokens are unknown.

    Args:
        name: as in `Step`, like all others.
        node: as declared in the graph.
        kind: what the node is.
        output: the text.
        input_text: what was read.
        blocks: the parts of the input.
        model: the agent's.
        controls: steps that decided that this one runs.
    """
    return Step(
        name=name,
        node=node,
        kind=kind,
        model=model,
        input_text=input_text,
        input_ids=(),
        input_spans=(),
        blocks=blocks,
        controls=controls,
        output=output,
        output_ids=(),
        output_spans=(),
        finish="given",
    )


def message_block(source: str, text: str, *, start: int = 0) -> Block:
    """A message in an input whose tokens are unknown.

    Args:
        source: the step that said it.
        text: what it said.
        start: where that begins in the input.
    """
    return Block(source=source, kind="message", text=text, chars=(start, start + len(text)), tokens=(0, 0))


def labelled_messages(heard: Iterable[tuple[str, str, str]]) -> tuple[str, tuple[Block, ...]]:
    """An input that has a line `SPEAKER: message` of each message, and its parts.

    Args:
        heard: speaker, step and message of each.
    """
    text = ""
    blocks: list[Block] = []
    for speaker, source, message in heard:
        text += f"{speaker}: "
        blocks.append(message_block(source, message, start=len(text)))
        text += message + "\n"
    return text, tuple(blocks)


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One run of a graph on one task.

    Attributes:
        id: of the task.
        task: the task, a JSON object.
        steps: those that ran, in topological order.
        skipped: those that a condition, the end of a loop or the lack of input kept from running.
        outputs: the steps whose outputs are the system's.
        failure: why the run ended early; None where it did not. The steps before it are kept.
    """

    id: str
    task: JsonDict
    steps: tuple[Step, ...]
    skipped: tuple[str, ...]
    outputs: tuple[str, ...]
    failure: str | None = None

    def step(self, name: str) -> Step:
        """The step of a name; KeyError if it did not run."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)

    @property
    def output(self) -> str:
        """The outputs' texts, a line each."""
        return "\n".join(self.step(name).output for name in self.outputs)


def trace_to_line(trace: Trace) -> str:
    """A trace as one line of JSON, without the line's end."""
    return json.dumps({"format": FORMAT, **to_json(trace)})


def trace_from_line(line: str) -> Trace:
    """The trace of a line.

    Raises:
        ValueError: not JSON, another format, a field that is missing, unknown or of another type, or spans and names
            that do not fit.
    """
    fields = parse_object(line)
    version = fields.pop("format", None)
    if version != FORMAT:
        raise ValueError(f"format {version!r}, not {FORMAT}")
    trace = from_json(Trace, fields)
    _check_consistent(trace)
    return trace


def write_traces(path: str | Path, traces: Iterable[Trace]) -> int:
    """Writes traces as JSON lines, a whole file or none; returns their number."""
    count = 0
    with atomic_write(Path(path)) as stream:
        for trace in traces:
            stream.write(trace_to_line(trace).encode() + b"\n")
            count += 1
    return count


def append_trace(path: str | Path, trace: Trace) -> None:
    """Adds a trace to a file of JSON lines, so that a run that dies keeps what it has finished."""
    with Path(path).open("a", encoding="utf-8") as stream:
        stream.write(trace_to_line(trace) + "\n")


def read_traces(path: str | Path, *, skip_bad_lines: bool = False) -> tuple[list[Trace], list[BadLine]]:
    """The traces of a file of JSON lines, and the lines that cannot be read; empty lines are passed over.

    Args:
        path: the file.
        skip_bad_lines: go on past malformed lines; otherwise they are an error.

    Raises:
        DataError: no such file, or malformed lines: their number, and the first with its problem.
    """
    return read_json_lines(path, lambda line, _: trace_from_line(line), skip_bad_lines=skip_bad_lines)


def _check_consistent(trace: Trace) -> None:
    earlier: set[str] = set()
    for step in trace.steps:
        if step.name in earlier:
            raise ValueError(f"two steps {step.name!r}")
        for block in step.blocks:
            if block.kind == "message" and block.source not in earlier:
                raise ValueError(f"step {step.name!r} reads {block.source!r}, which did not run before it")
            _check_span(step, block.chars, len(step.input_text))
            _check_span(step, block.tokens, len(step.input_ids))
        for ids, spans, text in (
            (step.input_ids, step.input_spans, step.input_text),
            (step.output_ids, step.output_spans, step.output),
        ):
            if len(ids) != len(spans):
                raise ValueError(f"step {step.name!r}: {len(ids)} tokens, {len(spans)} spans")
            for span in spans:
                _check_span(step, span, len(text))
        earlier.add(step.name)
    for name in trace.outputs:
        if name not in earlier:
            raise ValueError(f"the output {name!r} did not run")


def _check_span(step: Step, span: Span, length: int) -> None:
    if not 0 <= span[0] <= span[1] <= length:
        raise ValueError(f"step {step.name!r}: span {list(span)} in {length}")
