"""How well a system tracks and answers held-out dialogues, written dialogue by dialogue, to be cut short and go on."""

import json
import math
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from framework.core.errors import DataError
from framework.core.serialization import JsonDict, from_json, to_json
from framework.gbc.environments.multiwoz.dataset.dialogues import Dialogue, State
from framework.gbc.environments.multiwoz.metrics import wrong_slots
from framework.gbc.environments.multiwoz.state_tracking.turns import Tracked, track, tracking_metrics
from framework.gbc.environments.multiwoz.success import Answer, Judge
from framework.gbc.execution.runner import RunOptions
from framework.gbc.graph.spec import Graph
from framework.gbc.language_models.interface import LanguageModel

_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class SaidTurn:
    """What a system made of a turn: the state after it, and the answer; `failure` where the run failed."""

    state: State
    answer: str
    failure: str | None


@dataclass(frozen=True, kw_only=True)
class SaidDialogue:
    """A dialogue by its id, with what a system made of its turns."""

    id: str
    turns: tuple[SaidTurn, ...]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A share with its 95 % interval.

    Attributes:
        share: 0 to 1.
        low, high: ends of the interval.
        num: what it is a share of.
    """

    share: float
    low: float
    high: float
    num: int


def wilson(successes: int, num: int) -> Interval:
    """A share of independent trials with its 95 % interval (Wilson 1927)."""
    z = 1.959964
    share = successes / num
    middle = (share + z * z / (2 * num)) / (1 + z * z / num)
    half = z * math.sqrt(share * (1 - share) / num + z * z / (4 * num * num)) / (1 + z * z / num)
    return Interval(share=share, low=max(0.0, middle - half), high=min(1.0, middle + half), num=num)


def share_of_turns(right: Sequence[Sequence[bool]], *, seed: int = 0) -> Interval:
    """The share of turns that are right, with 95 % of 2,000 resamplings of whole dialogues.

    Args:
        right: by dialogue, its turns.
        seed: of the resamplings.
    """
    counts = [(sum(turns), len(turns)) for turns in right]
    rng = random.Random(f"turns/{seed}")
    drawn = [rng.choices(counts, k=len(counts)) for _ in range(_RESAMPLES)]
    shares = sorted(sum(each for each, _ in sample) / sum(num for _, num in sample) for sample in drawn)
    num = sum(count for _, count in counts)
    low, high = shares[int(0.025 * _RESAMPLES)], shares[int(0.975 * _RESAMPLES) - 1]
    return Interval(share=sum(each for each, _ in counts) / num, low=low, high=high, num=num)


def evaluate(
    graph: Graph,
    models: Mapping[str, LanguageModel],
    dialogues: Sequence[Dialogue],
    out: Path,
    *,
    at_once: int,
) -> Iterator[SaidDialogue]:
    """Runs a system over the dialogues that `out` lacks; each is appended and yielded after its last turn.

    Args:
        graph: its agents say changes and perhaps an answer (`track`).
        models: by the names that the agents use.
        dialogues: what is measured on.
        out: JSON lines, a dialogue each.
        at_once: dialogues of a group, whose turns share batches.

    Raises:
        ConfigError: as `track`.
        DataError: `out` is of another form.
    """
    done = {each.id for each in read_said(out)}
    if out.exists():
        content = out.read_bytes()
        os.truncate(out, content.rfind(b"\n") + 1)
    left = [dialogue for dialogue in dialogues if dialogue.id not in done]
    for start in range(0, len(left), at_once):
        group = {dialogue.id: dialogue for dialogue in left[start : start + at_once]}
        said: dict[str, list[SaidTurn]] = {id: [] for id in group}
        options = RunOptions(on_empty="keep", tasks_at_once=at_once)
        for turn in track(graph, models, [*group.values()], options=options):
            id = turn.task["dialogue"]
            said[id].append(SaidTurn(state=turn.state, answer=turn.answer, failure=turn.failure))
            if len(said[id]) == len(group[id].turns):
                row = SaidDialogue(id=id, turns=tuple(said[id]))
                with out.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(to_json(row)) + "\n")
                yield row


def read_said(path: Path) -> list[SaidDialogue]:
    """The dialogues of a file of `evaluate`; none where it is missing. Half a line, of a killed process, is left out.

    Raises:
        DataError: a line is of another form.
    """
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    try:
        return [from_json(SaidDialogue, json.loads(line)) for line in lines]
    except ValueError as error:
        raise DataError(f"{path} has another form ({error})", hint="delete it, and measure anew") from None


def scores(
    dialogues: Sequence[Dialogue], said: Sequence[SaidDialogue], judge: Judge | None
) -> tuple[dict[str, Interval], dict[str, float]]:
    """Joint goal accuracy and, with a judge, Inform and Success with intervals; and slot precision, recall and F1.

    Args:
        dialogues: those that were run, and perhaps others.
        said: what a system made of them, at least one.
        judge: of the release; None for dialogues without goals.
    """
    # In the order of the dialogues, whatever order they were done in: resamplings are the same then.
    done = {each.id: each for each in said}
    pairs = [(dialogue, done[dialogue.id]) for dialogue in dialogues if dialogue.id in done]
    if not pairs:
        raise DataError("no dialogue was measured", hint="run the command again")
    right = [
        [not wrong_slots(turn.state, label.state) for turn, label in zip(each.turns, dialogue.turns, strict=True)]
        for dialogue, each in pairs
    ]
    found = {"joint_goal_accuracy": share_of_turns(right)}
    if judge is not None:
        judged = [judge.judge(dialogue.goal, _answers(dialogue, each)) for dialogue, each in pairs]
        found["inform"] = wilson(sum(each.inform for each in judged), len(judged))
        found["success"] = wilson(sum(each.success for each in judged), len(judged))
    tracked = [
        Tracked(task={"domains": dialogue.domains}, state=turn.state, expected=label.state, failure=turn.failure)
        for dialogue, each in pairs
        for turn, label in zip(each.turns, dialogue.turns, strict=True)
    ]
    slots = {name: value for name, value in tracking_metrics(tracked).items() if name.startswith("slot_")}
    return found, {name: value for name, value in slots.items() if "/" not in name}


def _answers(dialogue: Dialogue, said: SaidDialogue) -> list[Answer]:
    return [
        Answer(text=turn.answer, state=turn.state, booked=label.booked)
        for turn, label in zip(said.turns, dialogue.turns, strict=True)
    ]


def as_json(found: Mapping[str, Interval], slots: Mapping[str, float]) -> JsonDict:
    """Scores for a file."""
    return {**{name: to_json(value) for name, value in found.items()}, **slots}
