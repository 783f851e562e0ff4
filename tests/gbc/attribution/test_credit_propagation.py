"""Credit on its way from output tokens to the outputs that they were made from, by hand."""

from typing import Any

import pytest
import torch

from framework.gbc.attribution.credit_propagation import (
    block_shift,
    loss_shares,
    output_units,
    propagate_to_source,
    spread,
)
from framework.gbc.attribution.edge_weights import Connection
from framework.gbc.graph.trace import Block, Step, Trace
from framework.gbc.graph.verbal_loss import Place, VerbalLoss


def step(name: str, output: str, *, spans: Any = (), text: str = "", input_spans: Any = ()) -> Step:
    return Step(
        name=name,
        node=name,
        kind="agent",
        model="m",
        input_text=text,
        input_ids=tuple(range(len(input_spans))),
        input_spans=tuple(input_spans),
        blocks=(),
        controls=(),
        output=output,
        output_ids=tuple(range(len(spans))),
        output_spans=tuple(spans),
        finish="stop",
    )


def connection(block: Block | None, tokens: list[list[float]] | None, **options: Any) -> Connection:
    rows = 1 if tokens is None else len(tokens)
    return Connection(
        source="a",
        kind="message",
        estimator="gradient",
        block=block,
        weight=torch.ones(rows, dtype=torch.float64),
        share=torch.ones(rows, dtype=torch.float64),
        tokens=None if tokens is None else torch.tensor(tokens, dtype=torch.float64),
        **options,
    )


def credit(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_units_are_tokens_or_words():
    assert output_units(step("a", "ab c", spans=[(0, 2), (2, 4)])) == ((0, 2), (2, 4))
    assert output_units(step("a", "ab  c")) == ((0, 2), (2, 5))
    assert output_units(step("a", "")) == ((0, 0),)


def test_a_span_is_shared_as_units_overlap_it():
    units = ((0, 2), (2, 4), (4, 8))
    assert spread(units, 1, 5).tolist() == pytest.approx([0.25, 0.5, 0.25])
    assert spread(units, 8, 9).tolist() == pytest.approx([1 / 3] * 3)


def test_the_loss_is_shared_by_its_places():
    trace = Trace(id="t", task={}, steps=(step("a", "abcd"), step("b", "xy")), skipped=(), outputs=("a", "b"))
    units = {"a": ((0, 2), (2, 4)), "b": ((0, 2),)}
    places = (Place(step="a", start=2, stop=4), Place(step="b", start=0, stop=2, weight=3.0))
    shares = loss_shares(trace, VerbalLoss(value=2.0, text="", places=places), units)
    assert shares["a"].tolist() == pytest.approx([0.0, 0.25])
    assert shares["b"].tolist() == pytest.approx([0.75])
    even = loss_shares(trace, VerbalLoss(value=2.0, text=""), units)
    assert even["a"].tolist() == pytest.approx([0.25, 0.25])


def test_credit_of_tokens_goes_to_the_tokens_they_were():
    # The block " bc" of the input is the output "abc" of the source, read from its character 0 on as two tokens.
    source = step("a", " abc ", spans=[(0, 2), (2, 5)])
    reading = step("b", "", text="a: abc!", input_spans=[(0, 3), (3, 4), (4, 7)])
    block = Block(source="a", kind="message", text="abc", chars=(3, 6), tokens=(1, 3))
    assert block_shift(block, source) == -2
    found = propagate_to_source(credit(2.0), connection(block, [[0.25, 0.75]]), reading, source, output_units(source))
    # "a" is in the first unit, "bc" in the second, and the "!" of its token is not in the block.
    assert found.tolist() == pytest.approx([0.5, 1.5])


def test_without_tokens_it_is_spread_over_all_and_nothing_is_lost():
    source = step("a", "one two")
    for each in (connection(None, None), connection(None, [[0.0, 0.0]], parts=((0, 3), (4, 7)))):
        found = propagate_to_source(credit(2.0), each, step("b", ""), source, output_units(source))
        assert found.sum().item() == pytest.approx(2.0)
    found = propagate_to_source(
        credit(2.0),
        connection(None, [[0.25, 0.75]], parts=((0, 3), (4, 7))),
        step("b", ""),
        source,
        output_units(source),
    )
    assert found.tolist() == pytest.approx([0.5, 1.5])


def test_a_block_that_is_another_text_has_no_shift():
    block = Block(source="a", kind="message", text="other", chars=(0, 5), tokens=(0, 1))
    assert block_shift(block, step("a", "text")) is None
    assert block_shift(None, step("a", "text")) is None
