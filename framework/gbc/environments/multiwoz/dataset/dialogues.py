"""Dialogues as episodes: the records, their JSON, and how a release's labels become them."""

from dataclasses import dataclass
from typing import Any, cast

from framework.core.errors import DataError
from framework.core.serialization import JsonDict, from_json
from framework.gbc.environments.multiwoz.dataset.acts import ActReader, delexicalised
from framework.gbc.environments.multiwoz.dataset.release import Split
from framework.gbc.environments.multiwoz.dataset.slots import (
    DOMAINS,
    REQUESTABLE,
    STATE_SLOTS,
    UNTRACKED_DOMAINS,
    attribute_name,
    domain_of,
    is_untracked,
    slot_name,
)
from framework.gbc.environments.multiwoz.dataset.values import normalise

_HINT = "leave the dialogue out, or correct its labels"

State = dict[str, str]
"""A belief state: slots such as `hotel-book day` to normalised values, `|` between alternatives."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What the user said and how the system answered.

    Attributes:
        user, system: the texts; `system` is empty where the source ends with the user.
        state: all that the user has asked for up to this turn; slots that nobody mentioned are left out.
        requested: what the user asks to be told, such as `hotel-phone`: from the user's acts, or, in releases without
            them, what the goal asks for and this answer tells.
        booked: domains with a booking after the answer.
        template: the answer with `[domain_attribute]` for the values of its annotated acts; None without annotation.
    """

    user: str
    system: str
    state: State
    requested: tuple[str, ...] = ()
    booked: tuple[str, ...] = ()
    template: str | None = None


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What the user wants of a domain.

    Attributes:
        inform: constraints by slot without its domain (`area`), normalised; without those of a booking.
        request: what is to be told, such as `phone`; `reference` where the goal has a booking ([B18], [N21]).
    """

    inform: dict[str, str]
    request: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Dialogue:
    """An episode.

    Attributes:
        id: such as `PMUL1635.json`.
        split: which it belongs to; None where the source does not say.
        domains: of the goal, or of the labels in a source without goals.
        goal: by domain; empty in a source without goals.
        turns: at least one.
    """

    id: str
    split: Split | None
    domains: tuple[str, ...]
    goal: dict[str, Goal]
    turns: tuple[Turn, ...]


def dialogue_from_json(value: object) -> Dialogue:
    """The dialogue of an episode's JSON, as `to_json` made it.

    Raises:
        DataError: not of that form, without turns, or a label for an unknown slot.
    """
    try:
        dialogue = from_json(Dialogue, value)
    except ValueError as error:
        raise DataError(f"an episode is not a MultiWOZ dialogue ({error})", hint="make the shards anew") from None
    check_dialogue(dialogue)
    return dialogue


def check_dialogue(dialogue: Dialogue) -> None:
    """Raises DataError for a dialogue that is empty or truncated, or a label for an unknown slot or domain."""
    if not dialogue.turns:
        raise DataError(f"dialogue {dialogue.id} is empty", hint=_HINT)
    last = len(dialogue.turns) - 1
    for number, turn in enumerate(dialogue.turns):
        where = f"dialogue {dialogue.id}, turn {number}"
        if not turn.user.strip() or not (turn.system.strip() or number == last):
            missing = "the user" if not turn.user.strip() else "the system"
            raise DataError(f"{where}: {missing} says nothing", hint=_HINT)
        for slot in turn.state:
            if slot not in STATE_SLOTS:
                raise DataError(f"{where}: label for the unknown slot {slot!r}", hint=_HINT)
        for name in (*turn.booked, *map(domain_of, turn.requested)):
            if name not in DOMAINS:
                raise DataError(f"{where}: label for the unknown domain {name!r}", hint=_HINT)
    for domain in (*dialogue.domains, *dialogue.goal):
        if domain not in DOMAINS:
            raise DataError(f"dialogue {dialogue.id}: unknown domain {domain!r}", hint=_HINT)


def read_dialogue(id: str, value: object, *, split: Split | None, acts: object = None) -> Dialogue:
    """A dialogue of `data.json`.

    Args:
        id: its key.
        value: `goal` and `log`: turns of the user and of the system by turns, the states with the system's
            (`metadata`).
        split: which it is in.
        acts: its entry in a file of acts of their own, by the number of the system's turn from "1".

    Raises:
        DataError: empty, truncated, an unknown slot, or another form.
    """
    try:
        dialogue = _read(id, value, split, cast("JsonDict", acts) if isinstance(acts, dict) else {})
    except DataError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        problem = f"dialogue {id} has not the form of MultiWOZ 2.1 ({type(error).__name__}: {error})"
        raise DataError(problem, hint=_HINT) from None
    check_dialogue(dialogue)
    return dialogue


def _read(id: str, value: Any, split: Split | None, acts: JsonDict) -> Dialogue:
    log = value["log"]
    if len(log) % 2:
        raise DataError(f"dialogue {id} is truncated: turn {len(log) - 1} has no answer", hint=_HINT)
    goal = _goal(value.get("goal", {}))
    reader = ActReader({domain: wanted.request for domain, wanted in goal.items()})
    turns: list[Turn] = []
    for number, (user, system) in enumerate(zip(log[::2], log[1::2], strict=True)):
        if not system["metadata"]:
            raise DataError(f"dialogue {id}, turn {number} has no state", hint=_HINT)
        booked = _booked(system["metadata"])
        told = system.get("dialog_act", acts.get(str(number + 1)))
        requested, domain = reader.read(user.get("dialog_act"), told, booked)
        turns.append(
            Turn(
                user=" ".join(user["text"].split()),
                system=" ".join(system["text"].split()),
                state=_state(system["metadata"], where=f"dialogue {id}, turn {number}"),
                requested=requested,
                booked=booked,
                template=delexicalised(system["text"], system.get("span_info"), domain),
            )
        )
    return Dialogue(id=id, split=split, domains=tuple(goal), goal=goal, turns=tuple(turns))


def _goal(value: JsonDict) -> dict[str, Goal]:
    """The goal by domain. Constraints that were to fail first (`fail_info`) are none of the end."""
    goals: dict[str, Goal] = {}
    for domain in DOMAINS:
        part = value.get(domain)
        if not part:
            continue
        inform = {key.lower(): normalise(f"{domain}-{key.lower()}", text) for key, text in part.get("info", {}).items()}
        request = [attribute_name(name, domain=domain) for name in part.get("reqt", ())]
        request += ["reference"] if part.get("book") else []
        goals[domain] = Goal(
            inform={key: text for key, text in inform.items() if text}, request=tuple(dict.fromkeys(request))
        )
    return goals


def _state(metadata: JsonDict, *, where: str) -> State:
    """The state of a system's turn. `semi` and `book` become slots; what has no value is not mentioned."""
    state: State = {}
    for domain, parts in metadata.items():
        if domain not in (*DOMAINS, *UNTRACKED_DOMAINS):
            raise DataError(f"{where}: labels for the unknown domain {domain!r}", hint=_HINT)
        for part, prefix in (("semi", ""), ("book", "book ")):
            for key, value in parts.get(part, {}).items():
                if key == "booked" or is_untracked(domain, prefix + key):
                    continue
                if not isinstance(value, str):
                    raise DataError(f"{where}: {domain} {key} is {value!r}, which is not text", hint=_HINT)
                if not value.strip():
                    continue
                slot = _slot(prefix + key, domain, where)
                value = normalise(slot, value)
                if value:
                    state[slot] = value
    return dict(sorted(state.items()))


def _slot(text: str, domain: str, where: str) -> str:
    try:
        return slot_name(text, domain=domain)
    except DataError as error:
        raise DataError(f"{where}: label for an {error.problem}", hint=error.hint) from None


def _booked(metadata: JsonDict) -> tuple[str, ...]:
    booked = (domain for domain, parts in metadata.items() if parts.get("book", {}).get("booked"))
    return tuple(sorted(domain for domain in booked if domain in DOMAINS))


def success_requests(goal: Goal) -> frozenset[str]:
    """Of what the goal asks for, what Success counts: easily told in any text ([B18], [N21])."""
    return frozenset(goal.request) & frozenset(REQUESTABLE)
