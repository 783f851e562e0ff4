"""What each step of a failed run should have said, as far as that can be told without its prompt (ours)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from framework.gbc.attribution.culprits.error_paths import (
    ErrorPath,
    WrongValue,
    error_path,
    exchanged,
    heard,
    read_by,
    word_spans,
    words,
    wrong_values,
)
from framework.gbc.graph.spec import Graph, Tool
from framework.gbc.graph.trace import Step, Trace
from framework.gbc.graph.verbal_loss import VerbalLoss, parse_fields

_LONGEST_PHRASE = 3
_MOST_REPLAYS = 2000
_SIGNS = ("+", "-", "*", "/")
"""Of sums: one stands for another though nobody said it."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What steps should have said.

    Attributes:
        targets: by step.
        paths: of the wrong values of the output, and then of those of tools' inputs.
        num_wrong: values of the output.
        right: the values of its other fields.
        explained: the tools that say their target once their input is another.
    """

    targets: dict[str, str]
    paths: list[ErrorPath]
    num_wrong: int
    right: frozenset[str]
    explained: set[str]


def find_targets(graph: Graph, trace: Trace, loss: VerbalLoss) -> Told:
    """From the output backwards.

    Args:
        graph: that made the run.
        trace: the run.
        loss: of it; what it tells of what was expected is where the targets come from.
    """
    wrong = wrong_values(trace, loss)
    paths = [error_path(trace, each, trace.outputs) for each in wrong]
    targets: dict[str, str] = {}
    if loss.expected_output and len(trace.outputs) == 1:
        (name,) = trace.outputs
        targets[name] = _start(trace.step(name).output) + loss.expected_output
    explained: set[str] = set()
    for step in reversed(trace.steps):
        if step.kind == "user":
            continue
        if step.name not in targets and (target := _target(step, paths)) != step.output:
            targets[step.name] = target
        tool = graph.nodes.get(step.node)
        if isinstance(tool, Tool) and step.name in targets:
            for author, text, value in _replays(trace, tool, step, targets[step.name]):
                explained.add(step.name)
                if author not in targets:
                    targets[author] = text
                    paths.append(error_path(trace, value, [author]))
    fields = {each.field for each in wrong}
    right = frozenset(value for name, (value, *_) in parse_fields(loss.expected_output).items() if name not in fields)
    return Told(targets=targets, paths=paths, num_wrong=len(wrong), right=right, explained=explained)


def _target(step: Step, paths: Sequence[ErrorPath]) -> str:
    """Its output with the expected values in the place of the wrong ones; a whole output that it owed."""
    text = step.output
    exchange: dict[str, str] = {}
    for path in paths:
        if not path.wrong.expected or step.name not in path.sayers | path.owing:
            continue
        corrected = path.wrong.corrected(text)
        if corrected == text and step.name in path.sayers:
            said, expected = path.wrong.exchange(text)
            exchange[said] = expected
        elif corrected == text:
            corrected = _start(text) + path.wrong.expected
        text = corrected
    return exchanged(text, exchange)


def _replays(trace: Trace, tool: Tool, step: Step, target: str) -> Iterator[tuple[str, str, WrongValue]]:
    """For the authors of a tool's input, the first text of each with which the tool says its target."""
    texts = {source.node: source.output for source in read_by(trace, step)}
    for author in read_by(trace, step):
        if author.kind != "agent":
            continue
        for text, value in islice(_other_texts(trace, author), _MOST_REPLAYS):
            try:
                says = tool.function({**texts, author.node: text})
            # Whatever a tool raises of a text that nobody gave it.
            except Exception:
                continue
            if says == target:
                yield author.name, text, value
                break


def _other_texts(trace: Trace, author: Step) -> Iterator[tuple[str, WrongValue]]:
    """Its message with a word exchanged for one that it could know, and the short phrases that it read; none twice."""
    found: set[str] = set()
    for text, value in _exchanges(trace, author):
        if text not in found:
            found.add(text)
            yield text, value


def _exchanges(trace: Trace, author: Step) -> Iterator[tuple[str, WrongValue]]:
    known = dict.fromkeys(word for name in heard(trace, [author.name]) for word in words(trace.step(name).output))
    for said in word_spans(author.output):
        for other in _SIGNS if said[0] in _SIGNS else known:
            if other != said[0]:
                text = author.output[: said.start()] + other + author.output[said.end() :]
                yield text, WrongValue(said=said[0], expected=other)
    for source in read_by(trace, author):
        spans = [match.span() for match in word_spans(source.output)]
        for first, (begin, _) in enumerate(spans):
            for _, end in spans[first : first + _LONGEST_PHRASE]:
                phrase = source.output[begin:end]
                yield _start(author.output) + phrase, WrongValue(said=author.output.strip(), expected=phrase)


def _start(text: str) -> str:
    """The white space with which a text begins."""
    return text[: len(text) - len(text.lstrip())]
