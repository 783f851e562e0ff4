"""Verbal losses: words, values and places by hand."""

import time

import pytest

from framework.core.errors import DataError
from framework.gbc.graph.trace import Step, Trace
from framework.gbc.graph.verbal_loss import VerbalLoss, exact_match, parse_fields, slot_loss


def trace(output: str, expected) -> Trace:
    step = Step(
        name="end",
        node="end",
        kind="agent",
        model="m",
        input_text="",
        input_ids=(),
        input_spans=(),
        blocks=(),
        controls=(),
        output=output,
        output_ids=(),
        output_spans=(),
        finish="stop",
    )
    return Trace(id="1", task={"expected": expected}, steps=(step,), skipped=(), outputs=("end",))


def test_exact_match():
    assert exact_match(trace(" yes\n", "yes")) == VerbalLoss(value=0.0, text="")
    assert exact_match(trace("no", "yes")) == VerbalLoss(
        value=1.0, text="Expected 'yes', the output was 'no'.", expected_output="yes"
    )


def test_fields_and_their_places():
    text = "area=north; price = cheap ;x=\nstars=4"
    assert {name: value for name, (value, _, _) in parse_fields(text).items()} == {
        "area": "north",
        "price": "cheap",
        "x": "",
        "stars": "4",
    }
    assert text[slice(*parse_fields(text)["area"][1:])] == "north"
    assert text[slice(*parse_fields(text)["price"][1:])] == "cheap"


def test_slots_that_are_wrong_missing_or_extra():
    found = slot_loss(trace("area=north; stars=3; wifi=yes", {"area": "north", "stars": "4", "price": "cheap"}))
    # One wrong, one missing, one extra, of three that were expected and the extra one.
    assert found.value == pytest.approx(3 / 4)
    assert found.text == (
        "stars should be '4', it was '3'. wifi was given as 'yes' but not asked for (false positive). "
        "price should be 'cheap', it was missing (false negative)."
    )
    assert [(place.start, place.stop, place.expected) for place in found.places] == [(18, 19, "4"), (26, 29, "")]
    assert found.missing == ("cheap",)
    assert found.expected_output == "area=north; stars=4; price=cheap"
    assert slot_loss(trace("area=north", {"area": "north"})) == VerbalLoss(value=0.0, text="")


@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_values_that_are_no_losses(value: float):
    with pytest.raises(DataError, match="a loss of"):
        VerbalLoss(value=value, text="")


def test_a_document_in_one_line_is_read_in_no_time():
    # From each of its characters anew, this would take a minute.
    text = "a b c d e " * 20_000
    started = time.process_time()
    assert parse_fields(text) == {}
    assert parse_fields(f"x=1; {text}=2") == {"x": ("1", 2, 3), text.strip(): ("2", len(text) + 6, len(text) + 7)}
    assert time.process_time() - started < 5
