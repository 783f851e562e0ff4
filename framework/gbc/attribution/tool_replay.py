"""Who is at fault for a tool's result, inputs or code: the tool is run again with what its inputs should be (ours)."""

import re
from collections.abc import Mapping

import torch

from framework.gbc.attribution.edge_weights import Connection
from framework.gbc.graph.spec import Tool
from framework.gbc.graph.trace import Span, Step, Trace

Wishes = Mapping[str, Mapping[tuple[int, int, str], float]]
"""By step: what should stand in a span of its output, with its weight."""


def rerun_connections(trace: Trace, step: Step, tool: Tool, wishes: Wishes) -> tuple[Connection, ...]:
    """The connections of a tool's step.

    What the tool gives as it should when it is run again with corrected inputs is their credit. The rest its
    code shares with inputs that are wrong in other ways, by the weight of what is wrong: they are the likelier cause.

    Args:
        trace: of the step.
        step: the tool's; it reads something.
        tool: is run again, once for every input that somebody wishes to be other: it should change nothing outside.
        wishes: for the outputs of all steps.
    """
    asked = wishes.get(step.name, {})
    total = sum(asked.values()) or 1.0
    wrong = {block.source: sum(wishes.get(block.source, {}).values()) for block in step.messages}
    satisfied = dict.fromkeys(wrong, 0.0)
    for source, texts in _mended(trace, step, wishes).items():
        try:
            output = tool.function(texts)
        except Exception:
            # A tool may raise anything: then it grants nothing.
            continue
        satisfied[source] = sum(weight for wish, weight in asked.items() if _is_satisfied(step.output, output, wish))
    share = min(1.0, max(satisfied.values()) / total)
    rest = (1 - share) / (total + sum(wrong.values()))
    parts = sum(satisfied.values()) or 1.0
    shares = {source: share * satisfied[source] / parts + rest * wrong[source] for source in wrong}
    return (
        *(_message(step, source, part, wishes) for source, part in shares.items()),
        Connection(
            source=step.name,
            kind="code",
            estimator="rerun",
            block=None,
            weight=torch.ones(1, dtype=torch.float64),
            share=torch.tensor([rest * total], dtype=torch.float64),
            tokens=None,
        ),
    )


def _mended(trace: Trace, step: Step, wishes: Wishes) -> dict[str, dict[str, str]]:
    """For every input with wishes: the texts that the tool reads, that input as it should be."""
    sources = [trace.step(block.source) for block in step.messages]
    said = {source.node: source.output for source in sources}
    return {
        source.name: {**said, source.node: _mend(source.output, wishes[source.name])}
        for source in sources
        if wishes.get(source.name)
    }


def _mend(text: str, wishes: Mapping[tuple[int, int, str], float]) -> str:
    """A text with the strongest wish for each of its spans."""
    best: dict[Span, tuple[float, str]] = {}
    for (start, stop, right), weight in wishes.items():
        best[start, stop] = max(best.get((start, stop), (0.0, "")), (weight, right))
    for (start, stop), (_, right) in sorted(best.items(), reverse=True):
        text = text[:start] + right + text[stop:]
    return text


def _is_satisfied(before: str, after: str, wish: tuple[int, int, str]) -> bool:
    """Whether the word of a span is as it should be."""
    start, _, right = wish
    number = sum(match.end() <= start for match in re.finditer(r"\S+", before))
    words = after.split()
    return number < len(words) and words[number] == right


def _message(step: Step, source: str, share: float, wishes: Wishes) -> Connection:
    block = next(block for block in step.messages if block.source == source)
    wished = wishes.get(source, {})
    total = sum(wished.values())
    parts = tuple((start, stop) for start, stop, _ in wished) or None
    tokens = torch.tensor([[weight / total for weight in wished.values()]], dtype=torch.float64) if wished else None
    return Connection(
        source=source,
        kind="message",
        estimator="rerun",
        block=block,
        weight=torch.tensor([share], dtype=torch.float64),
        share=torch.tensor([share], dtype=torch.float64),
        tokens=tokens,
        parts=parts,
    )
