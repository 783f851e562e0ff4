"""The few-shot files of IC-DST (Hu et al. 2022): a JSON list of turns, each with all that was said before it."""

from collections import defaultdict
from pathlib import Path
from typing import cast

from framework.core.errors import DataError
from framework.core.serialization import JsonDict
from framework.core.text_files import half_character_in, parse_json, read_text
from framework.gbc.environments.multiwoz.dataset.dialogues import Dialogue, State, Turn, check_dialogue
from framework.gbc.environments.multiwoz.dataset.slots import UNTRACKED_DOMAINS, is_untracked, slot_name
from framework.gbc.environments.multiwoz.dataset.values import normalise

_HINT = "give a file such as IC-DST's sampling script writes"


def read_turns(source: str | Path) -> dict[str, list[JsonDict]]:
    """The records of a file by dialogue, in the order in which the dialogues begin.

    Raises:
        DataError: no such file, or not a JSON list of objects with `ID`.
    """
    try:
        records = parse_json(read_text(source, hint=_HINT))
    except ValueError as error:
        raise DataError(f"{source} is {error}", hint=_HINT) from None
    if (half := half_character_in(records)) is not None:
        raise DataError(f"{source} has {half}", hint=_HINT)
    listed = cast("list[object]", records) if isinstance(records, list) else [None]
    if not all(isinstance(each, dict) and "ID" in each for each in listed):
        raise DataError(f"{source} is not a list of objects with an ID", hint=_HINT)
    found: defaultdict[str, list[JsonDict]] = defaultdict(list)
    for record in cast("list[JsonDict]", listed):
        found[str(record["ID"])].append(record)
    return dict(found)


def read_fewshot_dialogue(id: str, records: list[JsonDict]) -> Dialogue:
    """The dialogue of its turns' records.

    A record has `turn_id`, `dialog` with `usr` and `sys` (which speaks before the user, at first an empty text),
    `slot_values` for the whole state, and `domains`. There is no goal, no request and no booking in them, and the last
    turn has no answer.

    Raises:
        DataError: a turn is missing, an unknown slot, or another form.
    """
    try:
        dialogue = _read(id, records)
    except DataError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        problem = f"dialogue {id} has not the form of IC-DST's files ({type(error).__name__}: {error})"
        raise DataError(problem, hint=_HINT) from None
    check_dialogue(dialogue)
    return dialogue


def _read(id: str, records: list[JsonDict]) -> Dialogue:
    records = sorted(records, key=lambda record: record["turn_id"])
    numbers = [record["turn_id"] for record in records]
    if numbers != list(range(len(records))):
        raise DataError(f"dialogue {id} is truncated: it has the turns {numbers}", hint=_HINT)
    said = records[-1]["dialog"]
    users, systems = said["usr"], said["sys"]
    if not len(users) == len(systems) == len(records):
        problem = f"dialogue {id} is truncated: {len(records)} turns, {len(users)} texts of the user"
        raise DataError(problem, hint=_HINT)
    turns = tuple(
        Turn(user=user, system=system, state=_state(record["slot_values"], where=f"dialogue {id}, turn {number}"))
        for number, (user, system, record) in enumerate(zip(users, [*systems[1:], ""], records, strict=True))
    )
    domains = tuple(sorted({name for name in records[-1]["domains"] if name not in UNTRACKED_DOMAINS}))
    return Dialogue(id=id, split=None, domains=domains, goal={}, turns=turns)


def _state(values: dict[str, str], *, where: str) -> State:
    state: State = {}
    for name, value in values.items():
        domain, _, part = name.partition("-")
        if is_untracked(domain, part):
            continue
        try:
            slot = slot_name(name)
        except DataError as error:
            raise DataError(f"{where}: label for an {error.problem}", hint=error.hint) from None
        state[slot] = normalise(slot, value)
    return {slot: value for slot, value in sorted(state.items()) if value}
