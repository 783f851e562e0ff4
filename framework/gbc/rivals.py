"""What wrong tokens should have been, wherever on the way they were said: for the scalar `contrast` (ours)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from framework.gbc.models import LocalModel
from framework.gbc.trace import Step


@dataclass(frozen=True, kw_only=True)
class Correction:
    """A wrong text of an output.

    Attributes:
        wrong, right: what stands there, and what should.
        before, after: the rest of the output: other agents may have said the same among other words.
    """

    wrong: str
    right: str
    before: str = ""
    after: str = ""


def find_rivals(model: LocalModel, step: Step, corrections: Sequence[Correction]) -> tuple[int, ...]:
    """For each output token, the one that should have stood there, or -1 where there is no correction.

    The output is tokenized again with the right text in place of the wrong one; the first token that differs, if it
    is one of the wrong text's, has the other for its rival. A correction is of one place, the one whose words before it
    agree for longest: elsewhere the same text may be right. Of several corrections of one place, the same decides. What
    is a word by itself is looked for as such.
    """
    rivals = [-1] * len(step.output_ids)
    found: dict[int, Correction] = {}
    for correction in corrections:
        starts = [match.start() for match in _pattern(correction).finditer(step.output)]
        if starts:
            start = max(starts, key=lambda start: _agreement(step, start, correction))
            if start not in found or _agreement(step, start, correction) > _agreement(step, start, found[start]):
                found[start] = correction
    for start, correction in found.items():
        ids = model.tokenizer(step.output[:start] + correction.right, add_special_tokens=False)["input_ids"]
        assert isinstance(ids, list)
        pairs = enumerate(zip(step.output_ids, ids, strict=False))
        place = next((index for index, (said, other) in pairs if said != other), None)
        if place is not None and step.output_spans[place][1] > start:
            rivals[place] = ids[place]
    return tuple(rivals)


def _pattern(correction: Correction) -> re.Pattern[str]:
    left = "" if correction.before[-1:].isalnum() else r"(?<!\w)"
    right = "" if correction.after[:1].isalnum() else r"(?!\w)"
    wrong = correction.wrong
    return re.compile(
        (left if wrong[:1].isalnum() else "") + re.escape(wrong) + (right if wrong[-1:].isalnum() else "")
    )


def _agreement(step: Step, start: int, correction: Correction) -> int:
    """Number of characters before a place that are the same in both outputs."""
    pairs = zip(reversed(step.output[:start]), reversed(correction.before), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
