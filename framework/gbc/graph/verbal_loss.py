"""Verbal losses: what is wrong with a system's output, in words, as a number, and where.

Published: the words, as the node at which the walk begins. The number and the places in the output are ours: credit
starts at the tokens that are wrong, not at all of them.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from framework.core.errors import DataError
from framework.gbc.graph.trace import Trace


@dataclass(frozen=True, kw_only=True)
class Place:
    """A part of an output that the loss is about.

    Attributes:
        step: the output's step.
        start, stop: characters of its output.
        weight: share of the loss against those of other places.
        expected: what should stand there; empty where that is unknown or nothing. Counterfactual edits begin with it.
    """

    step: str
    start: int
    stop: int
    weight: float = 1.0
    expected: str = ""


@dataclass(frozen=True, kw_only=True)
class VerbalLoss:
    """The loss of one run.

    Attributes:
        value: 0 for a perfect output, larger for worse.
        text: what is wrong; empty if nothing is.
        places: what of the outputs is wrong; all of it where there are none.
        missing: values that the outputs should have and do not.
        expected_output: the output as it should have been; empty where that is unknown, or the output is right.
    """

    value: float
    text: str
    places: tuple[Place, ...] = ()
    missing: tuple[str, ...] = ()
    expected_output: str = ""

    def __post_init__(self) -> None:
        if not self.value >= 0:
            raise DataError(f"a loss of {self.value}", hint="give 0 for a perfect output, larger for worse")


Loss = Callable[[Trace], VerbalLoss]
"""The loss of a trace that did not fail; the task's labels are in `trace.task`."""


def exact_match(trace: Trace, *, field: str = "expected") -> VerbalLoss:
    """0 or 1: whether the output is the task's text `field`, but for white space at the ends."""
    expected, actual = str(trace.task[field]).strip(), trace.output.strip()
    if expected == actual:
        return VerbalLoss(value=0.0, text="")
    text = f"Expected {expected!r}, the output was {actual!r}."
    return VerbalLoss(value=1.0, text=text, expected_output=expected)


def parse_fields(text: str, *, separator: str = ";", sign: str = "=") -> dict[str, tuple[str, int, int]]:
    """The fields of a text such as `area=north; price=cheap`: by name the value and its span; of two, the last.

    Args:
        text: an output.
        separator: between fields.
        sign: between a name and its value.

    Returns:
        By name (value, start, stop), in characters of the text, the stop excluded.
    """
    return {name: (value, start, stop) for name, value, start, stop in find_fields(text, separator, sign)}


def find_fields(text: str, separator: str = ";", sign: str = "=") -> Iterator[tuple[str, str, int, int]]:
    """The fields of a text in their order, those of one name too: (name, value, start, stop) as of `parse_fields`.

    Args:
        text: an output.
        separator: between fields.
        sign: between a name and its value.
    """
    other = rf"[^{re.escape(separator + sign)}\n]"
    # A name begins where a run of its characters does: tried from each of them, long lines would take hours.
    pattern = rf"(?<!{other})({other}+){re.escape(sign)}([^{re.escape(separator)}\n]*)"
    for match in re.finditer(pattern, text):
        value = match[2].strip()
        start = match.start(2) + match[2].find(value)
        yield match[1].strip(), value, start, start + len(value)


def slot_loss(trace: Trace, *, field: str = "expected", separator: str = ";", sign: str = "=") -> VerbalLoss:
    """The share of slots that are wrong, with the words of the method: false positives, false negatives, wrong values.

    The task's `field` maps slots to values. The value is (wrong + missing + extra) / (expected + extra). The wrong and
    the extra slots of the output are its places.

    Args:
        trace: a run that did not fail.
        field: of the task, with the right slots.
        separator: between slots of an output.
        sign: between a slot and its value.
    """
    expected: Mapping[str, str] = trace.task[field]
    messages: list[str] = []
    places: list[Place] = []
    seen: set[str] = set()
    extra = 0
    for step in trace.outputs:
        for name, (value, start, stop) in parse_fields(trace.step(step).output, separator=separator, sign=sign).items():
            right = ""
            if name not in expected:
                extra += 1
                messages.append(f"{name} was given as {value!r} but not asked for (false positive).")
            elif value != str(expected[name]):
                seen.add(name)
                right = str(expected[name])
                messages.append(f"{name} should be {str(expected[name])!r}, it was {value!r}.")
            else:
                seen.add(name)
                continue
            places.append(Place(step=step, start=start, stop=stop, expected=right))
    missing = [name for name in expected if name not in seen]
    messages += [f"{name} should be {str(expected[name])!r}, it was missing (false negative)." for name in missing]
    wrong = len(places) - extra
    value = (wrong + len(missing) + extra) / max(1, len(expected) + extra)
    return VerbalLoss(
        value=value,
        text=" ".join(messages),
        places=tuple(places),
        missing=tuple(str(expected[name]) for name in missing),
        expected_output=f"{separator} ".join(f"{name}{sign}{right}" for name, right in expected.items())
        if value
        else "",
    )
