"""Who is at fault for a tool's result, inputs or code: the tool is run again with what its inputs should be (ours)."""

import re
from collections.abc import Mapping

import torch

from framework.gbc.attribution.edge_weights import Connection
from framework.gbc.graph.spec import Tool
from framework.gbc.graph.trace import Span, Step, Trace

Target = tuple[int, int, str]
"""What should stand in a span of an output: start, stop, text."""
Targets = Mapping[str, Mapping[Target, float]]
"""By step: the targets of its output, each with its weight in units of the loss."""


def tool_replay_connections(trace: Trace, step: Step, tool: Tool, targets: Targets) -> tuple[Connection, ...]:
    """The connections of a tool's step.

    What the tool gives as it should when it is run again with corrected inputs is their credit. The rest its
    code shares with inputs that are wrong in other ways, by the weight of what is wrong: they are the likelier cause.

    Args:
        trace: of the step.
        step: the tool's; it reads something.
        tool: is run again, once for every input that has a target: it should change nothing outside.
        targets: of the outputs of all steps.
    """
    own = targets.get(step.name, {})
    total = sum(own.values()) or 1.0
    wrong = {block.source: sum(targets.get(block.source, {}).values()) for block in step.messages}
    satisfied = dict.fromkeys(wrong, 0.0)
    for source, texts in _corrected_inputs(trace, step, targets).items():
        try:
            output = tool.function(texts)
        except Exception:
            # A tool may raise anything: then no target is satisfied.
            continue
        satisfied[source] = sum(weight for target, weight in own.items() if _is_satisfied(step.output, output, target))
    share = min(1.0, max(satisfied.values()) / total)
    rest = (1 - share) / (total + sum(wrong.values()))
    parts = sum(satisfied.values()) or 1.0
    shares = {source: share * satisfied[source] / parts + rest * wrong[source] for source in wrong}
    return (
        *(_message(step, source, part, targets) for source, part in shares.items()),
        Connection(
            source=step.name,
            kind="code",
            estimator="tool_replay",
            block=None,
            weight=torch.ones(1, dtype=torch.float64),
            share=torch.tensor([rest * total], dtype=torch.float64),
            tokens=None,
        ),
    )


def _corrected_inputs(trace: Trace, step: Step, targets: Targets) -> dict[str, dict[str, str]]:
    """For every input with targets: the texts that the tool reads, that input as it should be."""
    sources = [trace.step(block.source) for block in step.messages]
    said = {source.node: source.output for source in sources}
    return {
        source.name: {**said, source.node: _correct(source.output, targets[source.name])}
        for source in sources
        if targets.get(source.name)
    }


def _correct(text: str, targets: Mapping[Target, float]) -> str:
    """A text with the strongest target for each of its spans."""
    best: dict[Span, tuple[float, str]] = {}
    for (start, stop, right), weight in targets.items():
        best[start, stop] = max(best.get((start, stop), (0.0, "")), (weight, right))
    for (start, stop), (_, right) in sorted(best.items(), reverse=True):
        text = text[:start] + right + text[stop:]
    return text


def _is_satisfied(before: str, after: str, target: Target) -> bool:
    """Whether the word of a span is as it should be."""
    start, _, right = target
    number = sum(match.end() <= start for match in re.finditer(r"\S+", before))
    words = after.split()
    return number < len(words) and words[number] == right


def _message(step: Step, source: str, share: float, targets: Targets) -> Connection:
    block = next(block for block in step.messages if block.source == source)
    own = targets.get(source, {})
    total = sum(own.values())
    parts = tuple((start, stop) for start, stop, _ in own) or None
    tokens = torch.tensor([[weight / total for weight in own.values()]], dtype=torch.float64) if own else None
    return Connection(
        source=source,
        kind="message",
        estimator="tool_replay",
        block=block,
        weight=torch.tensor([share], dtype=torch.float64),
        share=torch.tensor([share], dtype=torch.float64),
        tokens=tokens,
        parts=parts,
    )
