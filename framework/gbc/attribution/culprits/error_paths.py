"""What is wrong in the output of a failed run, and through which steps it came there (ours)."""

import re
from collections.abc import Sequence

from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import VerbalLoss


def wrong_values(trace: Trace, loss: VerbalLoss) -> list[tuple[str, str]]:
    """What was said and what should have been: ("", value) for a missing one, (value, "") for one too many."""
    places = [(trace.step(place.step).output[place.start : place.stop], place.expected) for place in loss.places]
    found = [*places, *(("", value) for value in loss.missing)]
    if not found and loss.expected_output:
        found = [(trace.output.strip(), loss.expected_output)]
    return [(said.strip(), expected.strip()) for said, expected in found]


def has_words(text: str, words: str) -> bool:
    """Whether words stand in a text as whole words."""
    return bool(words) and re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None


def error_paths(trace: Trace, wrong: Sequence[tuple[str, str]]) -> list[set[str]]:
    """For each wrong value the steps that said it or handed it on to the output.

    Backwards from the output; a step to which somebody told the expected value is where that was lost: what it had
    read is not followed further.

    Args:
        trace: a failed run.
        wrong: of `wrong_values`.
    """
    paths: list[set[str]] = []
    for said, expected in wrong:
        path: set[str] = set()
        waiting = list(trace.outputs)
        while waiting:
            step = trace.step(waiting.pop())
            if step.kind == "user" or step.name in path or not has_words(step.output, said):
                continue
            path.add(step.name)
            read = [trace.step(block.source) for block in step.messages]
            if not any(source.kind != "user" and tells(source.output, expected, said) for source in read):
                waiting += [source.name for source in read]
        paths.append(path)
    return paths


def tells(text: str, expected: str, said: str) -> bool:
    """Whether the expected value stands in a text, and not only as a part of the wrong one.

    Args:
        text: that somebody read.
        expected: the value.
        said: the wrong value; empty where one is missing.
    """
    return has_words(text.replace(said, "\n") if said else text, expected)
