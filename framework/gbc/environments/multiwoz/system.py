"""The system for MultiWOZ: its database as a tool, and the graph with the database of a release.

The graph is that of the published experiments in its shape: a manager, a worker for each of five domains, a responder
(Yang et al. 2026). The prompts and the tool are ours.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from framework.core.errors import ConfigError, DataError
from framework.gbc.environments.multiwoz.dataset.database import Database, domain_part
from framework.gbc.environments.multiwoz.dataset.dialogues import State
from framework.gbc.environments.multiwoz.dataset.slots import DOMAINS, SLOTS, STATE_SLOTS, domain_of
from framework.gbc.environments.multiwoz.tasks import describe_found, parse_state, state_fields
from framework.gbc.graph.spec import Graph, load_graph

_STATE = "state"
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


class DatabaseTool:
    """Looks up what the workers' states ask for, and books: a tool of a graph.

    It reads nodes that are called as a domain and say its state (`hotel-area=north; ...`), and gives for each a line
    with the number of entities and the first ones. Where the state has all slots of a booking it is made, with a
    reference number that depends on the state alone; so is a taxi. Where it also reads `state`, the state so far
    (`hotel area=north; stars=4`), the nodes say what changes in it; if none of them ran, it looks up the last domain.

    Args:
        release: the folder or zip with the databases; read when the tool first runs.
        num_shown: entities that are told in full; 0 for their number alone.
    """

    def __init__(self, release: str, num_shown: int = 3) -> None:
        if num_shown < 0:
            raise ConfigError(f"num_shown {num_shown}", hint="use 0 or more")
        self.release = release
        self.num_shown = num_shown

    def __call__(self, texts: Mapping[str, str]) -> str:
        """The result for the workers' outputs; ConfigError if the release has no databases."""
        try:
            database = _database(self.release)
        except DataError as error:
            raise ConfigError(f"release: {error.problem}", hint=error.hint) from error
        states = _states(texts)
        states = {domain: state for domain, state in states.items() if domain_part(state, domain)}
        lines = [describe_found(database, states, num_shown=self.num_shown)] if set(states) - {"taxi"} else []
        lines += [line for domain, state in states.items() for line in [booking(database, domain, state)] if line]
        return "\n".join(lines) or "nothing was asked for"


def _states(texts: Mapping[str, str]) -> dict[str, State]:
    """By domain the state that it is asked with, from what workers said and, if it is read, the state so far."""
    said = {
        name: {field.name: field.value for field in state_fields(text, domain=name) if field.name in STATE_SLOTS}
        for name, text in texts.items()
        if name in DOMAINS
    }
    before = parse_state(texts.get(_STATE, ""))
    named = list(said) or [domain_of(slot) for slot in list(before)[-1:]]
    merged = {domain: {**before, **said.get(domain, {})} for domain in named}
    return {domain: {slot: value for slot, value in state.items() if value} for domain, state in merged.items()}


def booking(database: Database, domain: str, state: State) -> str:
    """What comes of a booking: empty where the state has not all that it takes, or nothing is found.

    Args:
        database: of all places.
        domain: to book in.
        state: the belief state.
    """
    part = domain_part(state, domain)
    digest = hashlib.sha256(f"{domain} {sorted(part.items())}".encode()).digest()
    if domain == "taxi":
        if not {"departure", "destination"} <= part.keys() or not {"leaveat", "arriveby"} & part.keys():
            return ""
        car = database.cars[digest[0] % len(database.cars)]
        return f"taxi: booked, {car}, phone 07{int.from_bytes(digest[1:6], 'big') % 10**9:09d}"
    needed = {slot for slot in SLOTS[domain] if slot.startswith("book ")}
    found = database.query_state(domain, state)
    if not needed or not needed <= part.keys() or not found:
        return ""
    reference = "".join(_LETTERS[byte % len(_LETTERS)] for byte in digest[1:8])
    # A reference without a letter might be taken for a phone number.
    return f"{domain}: booked {found[0].name}, reference {_LETTERS[digest[0] % 26]}{reference}"


def load_system(path: str | Path, *, release: str) -> Graph:
    """The graph of a file, its database tools with another release.

    Args:
        path: such as recipes/gbc/graphs/multiwoz.yaml.
        release: folder or zip with the databases.

    Raises:
        ConfigError: as `load_graph`.
    """
    graph = load_graph(path)
    tools = tuple(
        replace(tool, function=DatabaseTool(release, tool.function.num_shown))
        if isinstance(tool.function, DatabaseTool)
        else tool
        for tool in graph.tools
    )
    return replace(graph, tools=tools)


@lru_cache(maxsize=2)
def _database(release: str) -> Database:
    return Database.of_release(release)
