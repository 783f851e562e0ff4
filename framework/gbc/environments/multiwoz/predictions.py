"""Predictions of a dialogue system in the form of the standardised evaluation, and its Inform and Success.

The form and the rules are those of Nekvinda & Dušek 2021 (Shades of BLEU, Flavours of Success): by dialogue a list of
turns, each with `response` (placeholders for values) and, if the system has them, `state` (by domain and slot) and
`active_domains`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from framework.core.errors import DataError
from framework.core.serialization import JsonDict, from_json
from framework.core.text_files import parse_json, read_text, refuse_half_characters
from framework.gbc.environments.multiwoz.dataset.dialogues import Dialogue, State
from framework.gbc.environments.multiwoz.dataset.slots import attribute_name
from framework.gbc.environments.multiwoz.success import Answer, Judge, Judgement

_HINT = "give the form of the standardised evaluation: by dialogue a list of turns with a response each"


@dataclass(frozen=True, kw_only=True)
class PredictedTurn:
    """What a system said in a turn.

    Attributes:
        response: the answer, with placeholders such as `[hotel_name]` or `[value_name]`.
        state: the belief state by domain and slot; None: the labels count.
        active_domains: what the turn is about; None: estimated from what changes in the state.
    """

    response: str
    state: dict[str, dict[str, str]] | None = None
    active_domains: tuple[str, ...] | None = None


def read_predictions(path: str | Path) -> dict[str, tuple[PredictedTurn, ...]]:
    """The predictions of a JSON file by dialogue, such as `sng0073`.

    Raises:
        DataError: no such file, or another form; names the dialogue and the turn.
    """
    try:
        value: object = parse_json(read_text(path, hint=_HINT))
        refuse_half_characters(value)
    except ValueError as error:
        raise DataError(f"{path} is {error}", hint=_HINT) from None
    if not isinstance(value, dict) or not value:
        raise DataError(f"{path} is not an object of dialogues", hint=_HINT)
    found: dict[str, tuple[PredictedTurn, ...]] = {}
    for id, turns in cast(JsonDict, value).items():
        if not isinstance(turns, list) or not turns:
            raise DataError(f"{path}: dialogue {id} is not a list of turns", hint=_HINT)
        listed = enumerate(cast(list[object], turns))
        found[id] = tuple(_turn(each, f"{path}: dialogue {id}, turn {number}") for number, each in listed)
    return found


def judge_predictions(
    predictions: Mapping[str, Sequence[PredictedTurn]], dialogues: Mapping[str, Dialogue], judge: Judge
) -> dict[str, Judgement]:
    """Inform and Success of each predicted dialogue.

    If any turn has no state, all are judged by the labels, and if any has no active domains, all are estimated: a
    system gives them or does not.

    Args:
        predictions: by dialogue.
        dialogues: of the release by their ids; `sng0073` and `SNG0073.json` are the same.
        judge: of the release's `StandardDatabase`, without plain words.

    Raises:
        DataError: a dialogue that the release lacks or that is predicted twice, or more turns than it has.
    """
    known = {plain_id(id): dialogue for id, dialogue in dialogues.items()}
    turns = [turn for each in predictions.values() for turn in each]
    has_states = all(turn.state is not None for turn in turns)
    has_domains = all(turn.active_domains is not None for turn in turns)
    found: dict[str, Judgement] = {}
    judged: dict[str, str] = {}
    for id, predicted in predictions.items():
        dialogue = known.get(plain_id(id))
        if dialogue is None:
            raise DataError(f"the release has no dialogue {id}", hint="give the release that was predicted")
        if dialogue.id in judged:
            problem = f"dialogues {judged[dialogue.id]} and {id} are the same"
            raise DataError(problem, hint="predict each dialogue once")
        judged[dialogue.id] = id
        if len(predicted) > len(dialogue.turns):
            problem = f"dialogue {id} has {len(dialogue.turns)} turns, {len(predicted)} are predicted"
            raise DataError(problem, hint="give a turn for each answer of the system")
        answers = [
            Answer(
                text=turn.response,
                state=_state(turn.state) if has_states and turn.state is not None else labelled.state,
                booked=labelled.booked,
                active_domains=turn.active_domains if has_domains else None,
            )
            for turn, labelled in zip(predicted, dialogue.turns, strict=False)
        ]
        found[id] = judge.judge(dialogue.goal, answers)
    return found


def _turn(value: object, where: str) -> PredictedTurn:
    fields = cast(JsonDict, value) if isinstance(value, dict) else JsonDict()
    known = {key: fields[key] for key in ("response", "state", "active_domains") if fields.get(key) is not None}
    try:
        return from_json(PredictedTurn, known, allow_missing=True)
    except ValueError as error:
        raise DataError(f"{where}: {error}", hint=_HINT) from None


def _state(state: Mapping[str, Mapping[str, str]]) -> State:
    """A state as ours has it, in the order of the prediction, with the values as they are: queries spell them."""
    return {
        f"{domain}-{attribute_name(slot)}": value for domain, slots in state.items() for slot, value in slots.items()
    }


def plain_id(id: str) -> str:
    """A dialogue's id as all spell it: `sng0073` of `SNG0073.json`."""
    return id.partition(".")[0].lower()
