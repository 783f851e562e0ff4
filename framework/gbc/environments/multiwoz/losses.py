"""Verbal losses of MultiWOZ: what is wrong with a state or an answer, in words, as a number, and where."""

from collections.abc import Mapping, Sequence

from framework.gbc.environments.multiwoz.dataset.database import Database
from framework.gbc.environments.multiwoz.dataset.dialogues import State
from framework.gbc.environments.multiwoz.dataset.mentions import Mention, MentionReader
from framework.gbc.environments.multiwoz.dataset.slots import STATE_SLOTS, domain_of
from framework.gbc.environments.multiwoz.dataset.values import same_value
from framework.gbc.environments.multiwoz.tasks import answer_step, state_fields, state_steps
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import Place, VerbalLoss


def state_loss(trace: Trace) -> VerbalLoss:
    """The share of slots that are wrong, against the task's `expected`.

    The words name false positives (slots that nobody mentioned, and what is not a slot at all), wrong values and false
    negatives. The value is (wrong + missing + extra) / (expected + extra). The places are those of wrong and of extra
    values, and for what is missing the whole output of the step that should have given it, as far as it ran.
    """
    expected: Mapping[str, str] = trace.task["expected"]
    words: list[str] = []
    places: list[Place] = []
    seen: set[str] = set()
    extra = 0
    steps = state_steps(trace)
    for step, domain in steps:
        for field in state_fields(trace.step(step).output, domain=domain):
            if not field.value:
                continue
            right = expected.get(field.name, "")
            if not right:
                extra += 1
                what = "was not mentioned" if field.name in STATE_SLOTS else "is not a slot"
                words.append(f"{field.name}={field.value} was given, but {field.name} {what} (false positive).")
            else:
                seen.add(field.name)
                if same_value(field.name, field.value, right):
                    continue
                words.append(f"{field.name} should be {right!r}, it was {field.value!r} (wrong value).")
            places.append(Place(step=step, start=field.start, stop=field.stop, expected=right.partition("|")[0]))
    missing = [slot for slot in expected if slot not in seen]
    words += [f"{slot} should be {expected[slot]!r}, it was missing (false negative)." for slot in missing]
    value = (len(places) + len(missing)) / max(1, len(expected) + extra)
    for step, domain in steps:
        lacking = [slot for slot in missing if domain in ("", domain_of(slot))]
        if lacking:
            whole = len(trace.step(step).output)
            places.append(Place(step=step, start=0, stop=whole, weight=float(len(lacking))))
    return VerbalLoss(value=value, text=" ".join(words), places=tuple(places))


class AnswerLoss:
    """What is wrong with an answer: requests of the user that it leaves out, and offers that do not fit.

    The value is (missed + unfit) / (requested + offered); without either it is 0. An offer is a name or a train's
    number; it fits if the database finds it for the task's `expected` state, or the user has named it. The task's
    labels are `expected` and `requested`.

    Args:
        database: of the release.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._reader = MentionReader(database)

    def __call__(self, trace: Trace) -> VerbalLoss:
        """The loss of a trace of one turn; without an answer all requests are missed."""
        requested: Sequence[str] = trace.task["requested"]
        expected: State = trace.task["expected"]
        step = answer_step(trace)
        text = "" if step is None else trace.step(step).output
        mentions = self._reader.read(text)
        told = {(each.domain, each.attribute) for each in mentions}
        words: list[str] = []
        missed = 0
        for request in requested:
            domain, _, attribute = request.partition("-")
            if not told & {(domain, attribute), ("", attribute)}:
                missed += 1
                words.append(
                    f"The user asked for the {attribute} of the {domain}, the answer does not tell it (missed request)."
                )
        offers = [each for each in mentions if each.attribute in ("name", "trainid") and each.entities]
        places: list[Place] = []
        for offer in offers:
            if self._fits(offer, expected):
                continue
            named = text[offer.start : offer.stop]
            words.append(f"{named!r} was offered, but does not fit what the user wants of the {offer.domain}.")
            assert step is not None
            places.append(Place(step=step, start=offer.start, stop=offer.stop))
        value = (missed + len(places)) / max(1, len(requested) + len(offers))
        return VerbalLoss(value=value, text=" ".join(words), places=tuple(places))

    def _fits(self, offer: Mention, expected: State) -> bool:
        found = {entity.id for entity in self._database.query_state(offer.domain, expected)}
        if found & set(offer.entities):
            return True
        # A place that the user named, perhaps as a taxi's destination, may be spoken of.
        named = [value for slot, value in expected.items() if slot.endswith(("-name", "-departure", "-destination"))]
        entities = [each for each in self._database.entities[offer.domain] if each.id in offer.entities]
        return any(same_value("hotel-name", entity.name, value) for entity in entities for value in named)


class TurnLoss:
    """The mean of `state_loss` and `AnswerLoss`, with the words and places of both.

    Args:
        database: of the release.
    """

    def __init__(self, database: Database) -> None:
        self._answer = AnswerLoss(database)

    def __call__(self, trace: Trace) -> VerbalLoss:
        """The loss of a trace of one turn."""
        state, answer = state_loss(trace), self._answer(trace)
        return VerbalLoss(
            value=(state.value + answer.value) / 2,
            text=" ".join(part.text for part in (state, answer) if part.text),
            places=(*state.places, *answer.places),
        )
