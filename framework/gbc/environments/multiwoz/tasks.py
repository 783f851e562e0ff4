"""Episodes as tasks of a graph: each turn is one, with the labels of what came before as its context."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from framework.core.errors import DataError
from framework.core.serialization import JsonDict
from framework.gbc.environments.multiwoz.dataset.database import Database, Entity
from framework.gbc.environments.multiwoz.dataset.dialogues import Dialogue, State
from framework.gbc.environments.multiwoz.dataset.slots import DOMAINS, domain_of, slot_name
from framework.gbc.environments.multiwoz.dataset.values import normalise
from framework.gbc.environments.multiwoz.success import Answer, active_domains
from framework.gbc.execution.runner import Task
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import find_fields

BEGINNING = "(the dialogue begins)"
NO_STATE = "none"


@dataclass(frozen=True, kw_only=True)
class Field:
    """A slot as an output gives it.

    Attributes:
        name: the slot; what the output says where that is none.
        value: normalised; empty where the slot is said not to be mentioned.
        start, stop: characters of the value in the output.
    """

    name: str
    value: str
    start: int
    stop: int


def state_tasks(dialogue: Dialogue, *, max_context_turns: int | None = None) -> list[JsonDict]:
    """State tracking: a task for each turn.

    Fields for user turns are `context` (all that was said before, a line each) and `user`. Labels are `expected` (the
    whole state by slot), `domains`, and where the dialogue is from: `dialogue`, `turn`.

    Args:
        dialogue: the episode.
        max_context_turns: the last turns that the context has; all by default.
    """
    tasks: list[JsonDict] = []
    lines: list[str] = []
    for number, turn in enumerate(dialogue.turns):
        shown = lines if max_context_turns is None else lines[max(0, len(lines) - 2 * max_context_turns) :]
        tasks.append(
            {
                "id": f"{dialogue.id.removesuffix('.json')}/{number}",
                "dialogue": dialogue.id,
                "turn": number,
                "domains": list(dialogue.domains),
                "context": "\n".join(shown) or BEGINNING,
                "user": turn.user,
                "expected": dict(turn.state),
            }
        )
        lines += [f"User: {turn.user}", f"System: {turn.system}"]
    return tasks


def response_tasks(dialogue: Dialogue, database: Database, *, max_context_turns: int | None = None) -> list[JsonDict]:
    """Answering: the tasks of `state_tasks` that have an answer, with more fields.

    Fields for user turns are, besides, `state` (the label, as `format_state` writes it) and `database` (what it finds
    in the domain that the turn is about). Labels are, besides, `requested` (such as `hotel-phone`), `booked` and
    `reference` (the answer of the release).

    Args:
        dialogue: with its labels.
        database: of all places.
        max_context_turns: turns before the user's that are told.
    """
    active = active_domains([turn.state for turn in dialogue.turns])
    return [
        task
        | {
            "state": format_state(turn.state),
            "database": describe_found(database, {domain: turn.state for domain in [current] if domain}),
            "requested": list(turn.requested),
            "booked": list(turn.booked),
            "reference": turn.system,
        }
        for task, turn, current in zip(
            state_tasks(dialogue, max_context_turns=max_context_turns), dialogue.turns, active, strict=True
        )
        if turn.system
    ]


def tasks_of(dialogues: Iterable[Dialogue], database: Database | None = None) -> list[Task]:
    """The tasks of several dialogues: `response_tasks` with a database, else `state_tasks`."""
    return [
        task
        for dialogue in dialogues
        for task in (state_tasks(dialogue) if database is None else response_tasks(dialogue, database))
    ]


def format_state(state: Mapping[str, str]) -> str:
    """`hotel-area=north; hotel-stars=4`, or `none`."""
    return "; ".join(f"{slot}={value}" for slot, value in state.items()) or NO_STATE


def state_fields(text: str, *, domain: str = "") -> tuple[Field, ...]:
    """The slots of an output such as `hotel-area=north; hotel-stars=4`, in its order; of one twice, the last value.

    Args:
        text: of an agent.
        domain: of an agent for one domain, which may leave out the domain's name. Others may leave it out where the
            slot before is of the same: `hotel area=north; stars=4`.
    """
    found: dict[str, Field] = {}
    about = domain
    for text_name, value, start, stop in find_fields(text):
        # What precedes the first field, such as "State:", is not a part of its name.
        name = re.sub(r"^.*:\s*", "", text_name)
        try:
            slot = slot_name(name, domain=about)
        except DataError:
            found[name] = Field(name=name, value=value.strip().lower(), start=start, stop=stop)
            continue
        about = domain or domain_of(slot)
        found[slot] = Field(name=slot, value=normalise(slot, value), start=start, stop=stop)
    return tuple(found.values())


def parse_state(text: str, *, domain: str = "") -> State:
    """The state of an output; what is not a slot, or not mentioned, is left out."""
    fields = state_fields(text, domain=domain)
    return {field.name: field.value for field in fields if field.value and _is_slot(field.name)}


def state_steps(trace: Trace) -> list[tuple[str, str]]:
    """The output steps that give the state, with the domain that each is for.

    Those of nodes that are called as a domain, of which perhaps none ran; all, where the graph has no such node.
    """
    nodes = {name: trace.step(name).node for name in trace.outputs}
    workers = [(name, node) for name, node in nodes.items() if node in DOMAINS]
    if workers or any(name.partition("@")[0] in DOMAINS for name in trace.skipped):
        return workers
    return [(name, "") for name in nodes]


def answer_step(trace: Trace) -> str | None:
    """The output step that answers the user: the last whose node is not called as a domain; None if there is none."""
    names = [name for name in trace.outputs if trace.step(name).node not in DOMAINS]
    return names[-1] if names else None


def answer_text(trace: Trace) -> str:
    """What the user is told, empty if nothing. Of a node that says the state on a first line: what follows it."""
    step = answer_step(trace)
    text = "" if step is None else trace.step(step).output.strip()
    state, end, rest = text.partition("\n")
    says_state = step in dict(state_steps(trace)) and (state.strip().lower() == NO_STATE or state_fields(state))
    return rest.strip() if end and says_state else text


def predicted_state(trace: Trace) -> State:
    """The state of a trace's outputs together."""
    state: State = {}
    for name, domain in state_steps(trace):
        state |= parse_state(trace.step(name).output, domain=domain)
    return dict(sorted(state.items()))


def by_dialogue(traces: Iterable[Trace]) -> dict[str, list[Trace]]:
    """Traces of turns, by dialogue in the order of the turns."""
    found: dict[str, list[Trace]] = {}
    for trace in traces:
        found.setdefault(trace.task["dialogue"], []).append(trace)
    return {id: sorted(turns, key=lambda trace: trace.task["turn"]) for id, turns in found.items()}


def answers_of(dialogue: Dialogue, traces: Iterable[Trace]) -> list[Answer]:
    """What a system said in a dialogue, to be judged: an answer for each turn, empty where it failed or did not run.

    Args:
        dialogue: the episode.
        traces: of its turns.
    """
    found = {trace.task["turn"]: trace for trace in traces if trace.failure is None}
    answers: list[Answer] = []
    for number, turn in enumerate(dialogue.turns):
        trace = found.get(number)
        text = "" if trace is None else answer_text(trace)
        answers.append(Answer(text=text, state={} if trace is None else predicted_state(trace), booked=turn.booked))
    return answers


def describe_found(database: Database, states: Mapping[str, Mapping[str, str]], *, num_shown: int = 3) -> str:
    """What a database finds, in words: a line for each domain with the number, and the first entities' columns.

    Args:
        database: which.
        states: by domain the state that it is asked with.
        num_shown: entities that are told in full.
    """
    lines: list[str] = []
    for domain, state in states.items():
        if domain not in database.entities:
            continue
        found = database.query_state(domain, state)
        lines.append(f"{domain}: {len(found)} found")
        lines += [f"- {describe_entity(entity)}" for entity in found[:num_shown]]
    return "\n".join(lines) or "nothing was asked for"


def describe_entity(entity: Entity) -> str:
    """Its columns, the name first: `name=...; address=...`."""
    texts = {
        key: text
        for key, text in entity.texts.items()
        if key not in ("introduction", "signature", "takesbookings", "n")
    }
    first = "trainid" if entity.domain == "train" else "name"
    ordered = {first: texts.pop(first), **texts}
    return "; ".join(f"{key}={text}" for key, text in ordered.items())


def _is_slot(name: str) -> bool:
    try:
        return slot_name(name) == name
    except DataError:
        return False
