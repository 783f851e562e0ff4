"""What is wrong in the output of a failed run, and through which steps it came there (ours)."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from framework.gbc.graph.trace import Block, Step, Trace
from framework.gbc.graph.verbal_loss import VerbalLoss, parse_fields

_WORD = re.compile(r"[^\s,;=.?!:']+")
_LABEL = re.compile(r"(?<![^;:=\n])([^;:=\n]+)\s*[:=]\s*$")


@dataclass(frozen=True, kw_only=True)
class WrongValue:
    """What was said in a place, and what should have been.

    Attributes:
        said: empty for a value that is missing.
        expected: empty for a value too many.
        field: the name of the place, such as `price` in `price=cheap`; empty where it has none.
        others: the names of the other fields of the output.
    """

    said: str
    expected: str
    field: str = ""
    others: frozenset[str] = frozenset()

    def said_in(self, text: str) -> bool:
        """Whether a text says it: in the field of that name, where the text has one."""
        text = self._part(text)
        only = [word for word in words(self.said) if word not in words(self.expected)]
        return all(has_words(text, word) for word in only) if only else has_words(text, self.said)

    def told_in(self, text: str) -> bool:
        """Whether a text tells the expected value, in the field of that name where it has one.

        Half of the words are enough that the wrong value lacks; as a part of the wrong value they tell nothing.
        """
        text = self._part(text)
        lacking = [word for word in words(self.expected) if word not in words(self.said)]
        if not lacking:
            return has_words(text.replace(self.said, "\n") if self.said else text, self.expected)
        return 2 * sum(has_words(text, word) for word in lacking) >= len(lacking)

    def corrected(self, text: str) -> str:
        """The text with the expected value in the field of that name; as it is, where it has none."""
        fields = parse_fields(text)
        if self.field not in fields:
            return text
        _, start, stop = fields[self.field]
        return text[:start] + self.expected + text[stop:]

    def exchange(self, text: str) -> tuple[str, str]:
        """Which words of a text that says it are to be replaced, and by which.

        All of the value, where it stands there; otherwise only the words in which said and expected differ.
        """
        said, expected = words(self.said), words(self.expected)
        first = _equal(said, expected)
        last = _equal(said[first:][::-1], expected[first:][::-1])
        said, expected = said[first : len(said) - last], expected[first : len(expected) - last]
        whole = has_words(text, self.said) or not said
        return (self.said, self.expected) if whole else (" ".join(said), " ".join(expected))

    def _part(self, text: str) -> str:
        return parse_fields(text).get(self.field, (text, 0, 0))[0]


@dataclass(frozen=True, kw_only=True)
class ErrorPath:
    """Through which steps a wrong value came into the output.

    Attributes:
        wrong: the value.
        sayers: steps that said it, or handed it on.
        owing: steps that did not say it, and were to say what should stand there.
        told: steps of both kinds to which another agent or a tool had told the expected value: there it was lost.
    """

    wrong: WrongValue
    sayers: frozenset[str]
    owing: frozenset[str]
    told: frozenset[str]


def wrong_values(trace: Trace, loss: VerbalLoss) -> list[WrongValue]:
    """What was said and what should have been, in the order of the loss's places; then what is missing."""
    found: list[WrongValue] = []
    names = frozenset(parse_fields(loss.expected_output))
    for place in loss.places:
        output = trace.step(place.step).output
        label = _LABEL.search(output[: place.start])
        said, expected = output[place.start : place.stop].strip(), place.expected.strip()
        field = label[1].strip() if label else ""
        found.append(WrongValue(said=said, expected=expected, field=field, others=names - {field}))
    there = parse_fields(trace.output) if loss.missing else {}
    fields = [(name, value) for name, (value, *_) in parse_fields(loss.expected_output).items() if name not in there]
    for value in loss.missing:
        name = next((name for name, expected in fields if expected == value), "")
        found.append(WrongValue(said="", expected=value.strip(), field=name, others=names - {name}))
    if not found and loss.expected_output:
        found = [WrongValue(said=trace.output.strip(), expected=loss.expected_output.strip())]
    return found


def error_path(trace: Trace, wrong: WrongValue, start: Iterable[str]) -> ErrorPath:
    """The steps through which a wrong value came into some steps.

    Backwards: a step to whom the expected value was told is where it was lost; of what another one had read, the
    message for that field is followed (`sources`), and where there is none those that say the same.

    Args:
        trace: a failed run.
        wrong: the value.
        start: the steps that said it, or lack it.
    """
    sayers: set[str] = set()
    owing: set[str] = set()
    told: set[str] = set()
    begin = set(start)
    waiting = list(begin)
    while waiting:
        step = trace.step(waiting.pop())
        if step.kind == "user" or step.name in sayers | owing:
            continue
        if wrong.said and wrong.said_in(step.output):
            sayers.add(step.name)
        elif step.name not in begin:
            owing.add(step.name)
        named, read = sources(trace, step, wrong)
        if any(source.kind != "user" and wrong.told_in(source.output) for source in named or read):
            told.add(step.name)
        else:
            saying = [source for source in read if wrong.said and wrong.said_in(source.output)]
            waiting += [source.name for source in named or saying]
    return ErrorPath(wrong=wrong, sayers=frozenset(sayers), owing=frozenset(owing), told=frozenset(told))


def read_by(trace: Trace, step: Step) -> list[Step]:
    """The steps whose outputs a step had read."""
    return [trace.step(block.source) for block in step.messages]


def heard(trace: Trace, steps: Iterable[str]) -> list[str]:
    """The steps whose outputs some steps had read, and those that these had read, and so on; the nearest first."""
    found: dict[str, None] = {}
    waiting = [source.name for name in steps for source in read_by(trace, trace.step(name))]
    while waiting:
        name = waiting.pop(0)
        if name not in found:
            found[name] = None
            waiting += [source.name for source in read_by(trace, trace.step(name))]
    return list(found)


def sources(trace: Trace, step: Step, wrong: WrongValue) -> tuple[list[Step], list[Step]]:
    """From which of the messages that it read a step was to take a field.

    Args:
        trace: the run.
        step: that read them.
        wrong: the value in the field.

    Returns:
        Those for that field by name; and those that are for no other field.
    """
    read = [(trace.step(block.source), _before(step, block)) for block in step.messages]
    named = [source for source, before in read if wrong.field and _is_for(wrong.field, source, before)]
    others = [source for source, before in read if not any(_is_for(field, source, before) for field in wrong.others)]
    return named, others


def _is_for(field: str, message: Step, before: str) -> bool:
    """Whether a message has a field, was read after a label of its name, or its author has that name."""
    if message.kind == "user":
        return False
    label = re.search(rf"(?<!\w){re.escape(field)}\s*[:=]\s*$", before, re.IGNORECASE)
    return field in parse_fields(message.output) or field.casefold() == message.node.casefold() or label is not None


def _before(step: Step, block: Block) -> str:
    """What stands before a message in its line, up to the first message there."""
    begin = step.input_text.rfind("\n", 0, block.chars[0]) + 1
    return step.input_text[begin : min(each.chars[0] for each in step.messages if each.chars[0] >= begin)]


def exchanged(text: str, exchange: Mapping[str, str]) -> str:
    """A text with words in the place of others, all at once.

    Args:
        text: of a message.
        exchange: by the words to be replaced.
    """
    if not exchange:
        return text
    longest_first = sorted(exchange, key=len, reverse=True)
    pattern = "|".join(rf"(?<!\w){re.escape(said)}(?!\w)" for said in longest_first)
    text = re.sub(pattern, lambda match: exchange[match[0]], text)
    return re.sub(" {2,}", " ", text) if "" in exchange.values() else text


def words(text: str) -> list[str]:
    """The words of a text, numbers and signs included."""
    return _WORD.findall(text)


def word_spans(text: str) -> Iterator[re.Match[str]]:
    """Where they stand."""
    return _WORD.finditer(text)


def has_words(text: str, sought: str) -> bool:
    """Whether words stand in a text as whole words."""
    return bool(sought) and re.search(rf"(?<!\w){re.escape(sought)}(?!\w)", text) is not None


def _equal(left: Sequence[str], right: Sequence[str]) -> int:
    """With how many equal words two texts begin."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))
