"""State tracking turn by turn: agents read the state so far and the last exchange, and say what changes (ours).

Short inputs, for small models. In training the state so far is the label's; in `track` it is what the agents themselves
have said, so that the joint goal accuracy is that of a system on its own.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from framework.core.errors import DataError
from framework.core.serialization import JsonDict
from framework.data.shards.reader import ShardSet
from framework.gbc.environments.multiwoz.dataset.dialogues import Dialogue, State, dialogue_from_json
from framework.gbc.environments.multiwoz.dataset.slots import DOMAINS, STATE_SLOTS, domain_of
from framework.gbc.environments.multiwoz.dataset.values import alternatives, plain_text
from framework.gbc.environments.multiwoz.metrics import JointGoalAccuracy, SlotF1
from framework.gbc.environments.multiwoz.tasks import NO_STATE, answer_text, state_fields, state_steps
from framework.gbc.execution.runner import RunOptions, Task, run_graph
from framework.gbc.graph.spec import Graph
from framework.gbc.graph.trace import Trace
from framework.gbc.language_models.interface import LanguageModel

NOTHING_SAID = "none"

Change = dict[str, str]
"""Slots to their new values; an empty value takes the slot out of the state."""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A turn as the agents meet it.

    Attributes:
        before: the state so far, the domain that changed last at its end.
        system: what the system said last, in the values' spelling (`plain_text`); empty at the beginning.
        user: what the user answers.
        change: by the labels; of alternatives the first.
    """

    before: State
    system: str
    user: str
    change: Change


def exchanges(dialogue: Dialogue) -> list[Exchange]:
    """The turns of a dialogue, with the labels as the state so far."""
    found: list[Exchange] = []
    before: State = {}
    system = ""
    for turn in dialogue.turns:
        after = {slot: alternatives(value)[0] for slot, value in turn.state.items()}
        change = {slot: value for slot, value in after.items() if before.get(slot) != value}
        change |= {slot: "" for slot in before if slot not in after}
        user = _heard(turn.user)
        found.append(Exchange(before=before, system=system, user=user, change=change))
        before, system = apply_change(before, change), _heard(turn.system)
    return found


def _heard(text: str) -> str:
    """A text in the values' spelling: `9:15` as `09:15`."""
    return re.sub(r"(?<!\S)(?=\d:\d\d)", "0", plain_text(text))


def apply_change(state: Mapping[str, str], change: Mapping[str, str]) -> State:
    """The state after a change; the domains of the change come last."""
    touched = {domain_of(slot) for slot in change}
    merged = {**state, **change}
    return {slot: merged[slot] for slot in sorted(merged, key=lambda each: domain_of(each) in touched) if merged[slot]}


def write_change(change: Mapping[str, str], domain: str) -> str:
    """A domain's part of a change as its agent says it, `area=north; book day=friday`, or `none`.

    A slot that is taken out is `none` itself.
    """
    return "; ".join(_fields(change, domain)) or NO_STATE


def write_state(state: Mapping[str, str]) -> str:
    """A state in few tokens: `hotel area=north; stars=4; train day=friday`, or `none`."""
    parts = [f"{domain} {'; '.join(_fields(state, domain))}" for domain in dict.fromkeys(map(domain_of, state))]
    return "; ".join(parts) or NO_STATE


def _fields(values: Mapping[str, str], domain: str) -> list[str]:
    return [
        f"{slot.partition('-')[2]}={value or NO_STATE}" for slot, value in values.items() if domain_of(slot) == domain
    ]


def said_change(trace: Trace) -> Change:
    """The change that the outputs of a trace say together; what is not a slot is left out, and so are other domains."""
    change: Change = {}
    for name, domain in state_steps(trace):
        fields = state_fields(trace.step(name).output, domain=domain)
        change |= {
            field.name: field.value
            for field in fields
            if field.name in STATE_SLOTS and domain in ("", domain_of(field.name))
        }
    return change


def change_task(dialogue: Dialogue, number: int, exchange: Exchange) -> JsonDict:
    """The task of a turn: its fields `state`, `system` and `user`, and its labels.

    The labels are `expected` (the change), `dialogue`, `turn` and `domains`.

    Args:
        dialogue: with its labels.
        number: of the turn, from 0.
        exchange: the turn.
    """
    return {
        "id": f"{dialogue.id.removesuffix('.json')}/{number}",
        "dialogue": dialogue.id,
        "turn": number,
        "domains": list(dialogue.domains),
        "state": write_state(exchange.before),
        "system": exchange.system or NOTHING_SAID,
        "user": exchange.user,
        "expected": {slot: value for slot, value in exchange.change.items() if value},
    }


def change_tasks(episode: object) -> list[JsonDict]:
    """The turns of a dialogue's JSON as tasks, with the labels as the state so far: `tasks` of `GBCModule`.

    Raises:
        DataError: a dialogue that is empty, truncated or has unknown labels.
    """
    dialogue = dialogue_from_json(episode)
    return [change_task(dialogue, number, exchange) for number, exchange in enumerate(exchanges(dialogue))]


def change_targets(task: Task) -> dict[str, str]:
    """What agents should say of a task: those of the dialogue's domains, and one of the others.

    The others take turns: they should all say `none`, and so many of these would teach the agents little else.
    """
    others = [domain for domain in DOMAINS if domain not in task["domains"]]
    asked = {*task["domains"], *others[task["turn"] % len(others or [0]) :][:1]}
    return {domain: write_change(task["expected"], domain) for domain in DOMAINS if domain in asked}


def read_dialogues(folder: str | Path) -> list[Dialogue]:
    """The dialogues of a shard set; errors as in `ShardSet` and `dialogue_from_json`."""
    shards = ShardSet(folder)
    return [dialogue_from_json(json.loads(shards.read(number)[0])) for number in range(len(shards))]


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """A turn that was tracked.

    Attributes:
        task: as the agents met it, with the state that they had said.
        state: after it; unchanged where the run failed.
        expected: the label.
        answer: what the user is told; empty where nothing is.
        failure: why the run failed.
    """

    task: Task
    state: State
    expected: State
    failure: str | None
    answer: str = ""


def track(
    graph: Graph,
    models: Mapping[str, LanguageModel],
    dialogues: Sequence[Dialogue],
    *,
    options: RunOptions = RunOptions(on_empty="keep"),
) -> Iterator[Tracked]:
    """Runs a graph over dialogues, all first turns, then all second ones: each reads the state that the agents said.

    Args:
        graph: its outputs say changes; nodes that are called as a domain speak for it alone.
        models: by the names that the agents use.
        dialogues: what is tracked.
        options: how the graph runs.

    Raises:
        ConfigError: as `run_graph`.
        DataError: no dialogues.
    """
    if not dialogues:
        raise DataError("no dialogues to track", hint="give one or more")
    states: list[State] = [{} for _ in dialogues]
    turns = [exchanges(dialogue) for dialogue in dialogues]
    for number in range(max(map(len, turns))):
        rows = [row for row, found in enumerate(turns) if number < len(found)]
        tasks: list[JsonDict] = []
        for row in rows:
            met = turns[row][number]
            met = Exchange(before=states[row], system=met.system, user=met.user, change=met.change)
            tasks.append(change_task(dialogues[row], number, met))
        for row, task, trace in zip(rows, tasks, run_graph(graph, models, tasks, options=options), strict=True):
            if trace.failure is None:
                states[row] = apply_change(states[row], said_change(trace))
            yield Tracked(
                task=task,
                state=states[row],
                expected=dialogues[row].turns[number].state,
                failure=trace.failure,
                answer="" if trace.failure is not None else answer_text(trace),
            )


def tracking_metrics(tracked: Sequence[Tracked]) -> dict[str, float]:
    """Joint goal accuracy, and precision, recall and F1 of slots, in all and by domain (`metrics.py`)."""
    found: dict[str, float] = {}
    for metric in (JointGoalAccuracy(), SlotF1()):
        metric.update(
            [turn.state for turn in tracked],
            [turn.expected for turn in tracked],
            [turn.task["domains"] for turn in tracked],
        )
        found |= {name: float(value) for name, value in metric.compute().items()}
    return found
