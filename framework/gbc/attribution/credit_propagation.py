"""How credit is propagated: from output tokens to blocks of the input, and to the outputs that these were (ours)."""

import re
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from framework.gbc.attribution.edge_weights import Connection
from framework.gbc.graph.trace import Block, Span, Step, Trace
from framework.gbc.graph.verbal_loss import VerbalLoss
from framework.gbc.shapes import Credit


def output_units(step: Step) -> tuple[Span, ...]:
    """What credit is given to in an output: its tokens, or its words where the tokens are unknown; at least one."""
    if step.output_ids:
        return step.output_spans
    words = tuple(match.span() for match in re.finditer(r"\s*\S+", step.output))
    return words or ((0, len(step.output)),)


def loss_shares(trace: Trace, loss: VerbalLoss, units: Mapping[str, Sequence[Span]]) -> dict[str, Credit]:
    """How the loss is handed to the outputs' units: all of it, by the places, or evenly where there are none.

    Args:
        trace: the run.
        loss: its loss.
        units: spans of the units of each step's output.

    Returns:
        By step, shares in [0, 1] that add up to 1 over all outputs.
    """
    starts = {name: torch.zeros(len(units[name]), dtype=torch.float64) for name in trace.outputs}
    for place in loss.places:
        if place.step in starts and place.weight > 0:
            starts[place.step] += place.weight * spread(units[place.step], place.start, place.stop)
    if not any(start.sum() > 0 for start in starts.values()):
        starts = {name: spread(units[name], 0, len(trace.step(name).output)) for name in trace.outputs}
    total = sum(start.sum().item() for start in starts.values())
    return {name: start / total for name, start in starts.items()}


def loss_starts(trace: Trace, loss: VerbalLoss) -> dict[str, Credit]:
    """`loss_shares` at the units of the trace's outputs."""
    return loss_shares(trace, loss, {name: output_units(trace.step(name)) for name in trace.outputs})


def spread(units: Sequence[Span], start: int, stop: int) -> Float[Tensor, "unit"]:
    """1, shared by the units as they overlap a span; evenly by all units where none does.

    Args:
        units: spans of the units, in characters.
        start: of the span.
        stop: of the span, excluded.
    """
    return _spread_each([(start, stop)], units)[0]


def _spread_each(spans: Sequence[Span], units: Sequence[Span]) -> Float[Tensor, "span unit"]:
    """`spread` of each of many spans."""
    parts = torch.tensor(spans, dtype=torch.float64).reshape(-1, 1, 2)
    bounds = torch.tensor(units, dtype=torch.float64)
    overlap = torch.minimum(parts[..., 1], bounds[:, 1]) - torch.maximum(parts[..., 0], bounds[:, 0])
    overlap = overlap.clamp(min=0)
    total = overlap.sum(dim=1, keepdim=True)
    return torch.where(total > 0, overlap / torch.where(total > 0, total, 1), 1 / len(units))


def propagate_to_source(
    credit: Float[Tensor, "row"], connection: Connection, step: Step, source: Step, units: Sequence[Span]
) -> Float[Tensor, "unit"]:
    """Credit of the source's output units from the credit of a connection.

    Args:
        credit: what the connection is given, for each of its rows.
        connection: of a message or a decision.
        step: that the connection leads to.
        source: whose output it is.
        units: of the source's output.
    """
    total, block = credit.sum().item(), connection.block
    spans = connection.parts
    if spans is None and block is not None and connection.tokens is not None:
        shift = block_shift(block, source)
        if shift is not None:
            spans = tuple(
                (max(start, block.chars[0]) + shift, min(stop, block.chars[1]) + shift)
                for start, stop in step.input_spans[slice(*block.tokens)]
            )
    if spans is None or connection.tokens is None:
        return total * spread(units, 0, len(source.output))
    by_token = (credit[:, None] * connection.tokens).sum(dim=0)
    of_units = by_token @ _spread_each(spans, units)
    # A block without tokens, or rows without any weight in it.
    return of_units + (total - by_token.sum().item()) * spread(units, 0, len(source.output))


def block_shift(block: Block | None, source: Step) -> int | None:
    """From characters of the step's input to those of the source's output; None where the block is another text."""
    core = source.output.strip()
    if block is None or block.text != core or not core:
        return None
    return source.output.index(core) - block.chars[0]
