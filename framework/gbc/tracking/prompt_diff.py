"""What has changed from a text to the next: by words, or by lines where the texts are long (ours, on difflib)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import groupby
from typing import Literal

Kind = Literal["same", "removed", "added"]

_WORD = re.compile(r"\s*\w+|\s*[^\w\s]|\s+")
_MOST_WORDS = 600
"""Of both texts together; from there on lines are compared, since the time grows with the square."""
_MOST_LINES = 2000
_CONTEXT = 2
"""Equal lines that are shown around a change."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A stretch of a difference; all that is same or removed is the old text, all that is same or added the new one.

    Attributes:
        kind: where it stands: in both texts, in the old one, or in the new one.
        text: as it stands there.
    """

    kind: Kind
    text: str


def difference(before: str, after: str) -> tuple[Part, ...]:
    """The parts of two texts in their order."""
    if before == after:
        return _joined([Part(kind="same", text=before)])
    words = _WORD.findall(before), _WORD.findall(after)
    if len(words[0]) + len(words[1]) <= _MOST_WORDS:
        return _joined(_smoothed(_parts(*words)))
    lines = before.splitlines(keepends=True), after.splitlines(keepends=True)
    if len(lines[0]) + len(lines[1]) > _MOST_LINES:
        return _joined([Part(kind="removed", text=before), Part(kind="added", text=after)])
    return _joined(_parts(*lines))


def shortened(parts: Sequence[Part]) -> tuple[Part, ...]:
    """The parts with only a few lines of what is the same around every change; `[...]` stands for the others."""
    found: list[Part] = []
    for place, part in enumerate(parts):
        lines = part.text.splitlines(keepends=True)
        head = _CONTEXT if place > 0 else 0
        tail = _CONTEXT if place < len(parts) - 1 else 0
        if part.kind == "same" and len(lines) > head + tail + 1:
            text = "".join([*lines[:head], "[...]\n", *lines[len(lines) - tail :]])
            part = Part(kind="same", text=text)
        found.append(part)
    return tuple(found)


def marked(parts: Sequence[Part]) -> str:
    """The difference as plain text, `[-removed-]` and `{+added+}` as in wdiff."""
    marks = {"same": "{}", "removed": "[-{}-]", "added": "{{+{}+}}"}
    return "".join(marks[part.kind].format(part.text) for part in parts)


def _parts(before: Sequence[str], after: Sequence[str]) -> list[Part]:
    found: list[Part] = []
    for tag, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag == "equal":
            found.append(Part(kind="same", text="".join(before[a:b])))
            continue
        found += [Part(kind="removed", text="".join(before[a:b]))] if b > a else []
        found += [Part(kind="added", text="".join(after[c:d]))] if d > c else []
    return found


def _smoothed(parts: Sequence[Part]) -> list[Part]:
    """A single word that is the same between two replacements is not an island in them: it is in both."""
    kinds = [part.kind for part in parts]
    found: list[Part] = []
    for place, part in enumerate(parts):
        between = kinds[max(0, place - 2) : place] == kinds[place + 1 : place + 3] == ["removed", "added"]
        if between and len(_WORD.findall(part.text)) < 2:
            found += [replace(part, kind="removed"), replace(part, kind="added")]
        else:
            found.append(part)
    return found


def _joined(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Neighbours of a kind as one; of a change what was removed comes first."""
    found: list[Part] = []
    for is_same, stretch in groupby(parts, key=lambda part: part.kind == "same"):
        texts = list(stretch)
        kinds: tuple[Kind, ...] = ("same",) if is_same else ("removed", "added")
        for kind in kinds:
            text = "".join(part.text for part in texts if part.kind == kind)
            found += [Part(kind=kind, text=text)] if text else []
    return tuple(found)
