"""The micro world's systems: a manager, three to five domain workers, databases and a responder (ours).

Every system is its own contract, drawn by a seed: who serves which domain, which field of the user's request fills
which field of a form, what stays empty, and how values are written. The prompts say it in words:

- manager: `manager : alpha for hotel , bravo for train , ...`; it says what every worker is sent for, or that it rests.
- worker: `worker : area from area full , price from nothing full , ...`; it writes a form with every field.
  Who it is and what it serves stands in its message, not in its prompt: `alpha serves hotel`.
- responder: `responder : area from price , ...`; it writes the answer from the forms and the databases' names.

A wrong prompt of one system is a right one of another: no word gives a fault away.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from framework.core.errors import ConfigError
from framework.gbc.graph.spec import Agent, Graph, Tool

MODEL = "micro"
"""What the agents call their model."""
DOMAINS: tuple[str, ...] = ("hotel", "restaurant", "attraction", "train", "taxi")
WORKERS: tuple[str, ...] = ("alpha", "bravo", "charlie", "delta", "echo")
FIELDS: tuple[str, ...] = ("area", "price", "day")
VALUES: dict[str, dict[str, str]] = {
    "area": {"north": "n", "south": "s", "east": "e", "west": "w", "centre": "c"},
    "price": {"free": "$0", "cheap": "$1", "moderate": "$2", "expensive": "$3", "luxury": "$4"},
    "day": {"monday": "mon", "tuesday": "tue", "wednesday": "wed", "thursday": "thu", "friday": "fri"},
}
"""The values of each field, full and short."""
SHORT = {full: short for values in VALUES.values() for full, short in values.items()}
FULL = {short: full for full, short in SHORT.items()}
NAMES = ("acorn", "birch", "cedar", "daisy", "elder", "fern", "ginger", "hazel", "iris", "juniper", "kale", "laurel")
NONE = "none"
NOTHING = "nothing"
REST = "rest"
STYLES: tuple[str, ...] = ("full", "short")
SAME = "same"
DATABASES: dict[str, tuple[str, ...]] = {"places": ("hotel", "restaurant", "attraction"), "travel": ("train", "taxi")}


@dataclass(frozen=True, kw_only=True)
class Row:
    """How one field is filled.

    Attributes:
        source: the field whose value is taken, or `nothing`.
        style: how the value is written; `same`, as it is, is what the responder does and is not said.
    """

    source: str
    style: str


Rows = Mapping[str, Row]
"""A row for each field."""


@dataclass(frozen=True, kw_only=True)
class System:
    """A contract: what the prompts of a healthy system say.

    Attributes:
        serves: domain by worker, in their order.
        routes: domain, or `nothing`, by worker; those that are not there have routes as well.
        workers: rows by worker.
        responder: its rows.
    """

    serves: Mapping[str, str]
    routes: Mapping[str, str]
    workers: Mapping[str, Rows]
    responder: Rows

    @property
    def domains(self) -> tuple[str, ...]:
        """What users may ask for."""
        return tuple(self.serves.values())

    def prompts(self) -> dict[str, str]:
        """The agents' prompts by name."""
        return {
            "manager": manager_prompt(self.routes),
            **{name: worker_prompt(rows) for name, rows in self.workers.items()},
            "responder": responder_prompt(self.responder),
        }


def draw_system(seed: int, *, num_workers: int | None = None) -> System:
    """The system of a seed.

    Args:
        seed: any number.
        num_workers: 3 to 5; by default drawn too.

    Raises:
        ConfigError: another number of workers.
    """
    if num_workers is not None and not 3 <= num_workers <= len(WORKERS):
        raise ConfigError(f"{num_workers} workers", hint=f"use 3 to {len(WORKERS)}")
    rng = random.Random(f"system/{seed}")
    names = WORKERS[: num_workers or rng.randint(3, len(WORKERS))]
    shuffled = rng.sample(DOMAINS, len(DOMAINS))
    serves = dict(zip(names, shuffled, strict=False))
    routes = {worker: serves.get(worker, rng.choice((*DOMAINS, NOTHING))) for worker in WORKERS}
    return System(
        serves=serves,
        routes=routes,
        workers={name: draw_rows(rng, STYLES, empty=0.5) for name in names},
        responder=draw_rows(rng, (SAME,), empty=0.2),
    )


def draw_rows(rng: random.Random, styles: tuple[str, ...], *, empty: float) -> dict[str, Row]:
    """Rows of a healthy prompt: half of them exchange two fields, and one stays empty with the given probability.

    Args:
        rng: of all choices.
        styles: how values may be written.
        empty: probability that a field comes from nothing.
    """
    sources = dict(zip(FIELDS, FIELDS, strict=True))
    if rng.random() < 0.5:
        one, other = rng.sample(FIELDS, 2)
        sources[one], sources[other] = other, one
    if rng.random() < empty:
        sources[rng.choice(FIELDS)] = NOTHING
    return {field: Row(source=source, style=rng.choice(styles)) for field, source in sources.items()}


def make_graph(system: System) -> Graph:
    """The healthy graph: manager, workers, databases, responder; 5 to 7 agents and 1 or 2 tools."""
    prompts = system.prompts()
    databases = tuple(
        Tool(
            name=name,
            reads=tuple(w for w in system.workers if system.serves[w] in domains),
            function=look_up,
            estimator="tool_replay",
        )
        for name, domains in DATABASES.items()
        if set(domains) & set(system.domains)
    )
    length = 2 * (len(FIELDS) + 1) * len(WORKERS) + 2
    manager = agent("manager", prompts, ("user",), role="names the workers that are needed", max_new_tokens=length)
    workers = (
        agent(
            name,
            prompts,
            ("user", "manager"),
            role=f"fills in the form of {domain}",
            max_new_tokens=length,
            template=f"{name} serves {domain}\nuser: {{user}}\nmanager: {{manager}}",
        )
        for name, domain in system.serves.items()
    )
    read = (*system.workers, *(tool.name for tool in databases))
    responder = agent("responder", prompts, read, role="answers the user", max_new_tokens=length)
    return Graph(agents=(manager, *workers, responder), tools=databases, outputs=("responder",))


def agent(
    name: str,
    prompts: Mapping[str, str],
    reads: tuple[str, ...],
    *,
    role: str,
    max_new_tokens: int,
    template: str | None = None,
) -> Agent:
    """An agent of the micro model.

    Args:
        name: of the node.
        prompts: by node.
        reads: nodes whose outputs it is told.
        role: what it is for, in words.
        max_new_tokens: bound of the output.
        template: of the user message.
    """
    return Agent(
        name=name,
        prompt=prompts[name],
        model=MODEL,
        reads=reads,
        role=role,
        max_new_tokens=max_new_tokens,
        template=template,
    )


def manager_prompt(routes: Mapping[str, str]) -> str:
    """`manager : alpha for hotel , bravo for train`."""
    return "manager : " + " , ".join(f"{worker} for {domain}" for worker, domain in routes.items())


def worker_prompt(rows: Rows) -> str:
    """`worker : area from area full , ...`."""
    return f"worker : {rows_text(rows)}"


def responder_prompt(rows: Rows) -> str:
    """`responder : area from price , ...`."""
    return f"responder : {rows_text(rows)}"


def rows_text(rows: Rows) -> str:
    """`area from price short , ...`."""
    return " , ".join(
        f"{field} from {row.source}" + (f" {row.style}" if row.style != SAME else "") for field, row in rows.items()
    )


def parse_slots(text: str) -> dict[str, str]:
    """The slots of a form, a request or an answer, such as `hotel-area north`: values by name; of two, the last."""
    words = text.split()
    return {name: value for name, value in pairwise(words) if "-" in name and "-" not in value}


def look_up(texts: Mapping[str, str], *, wrong: Mapping[str, int] | None = None) -> str:
    """The databases' function: for every form the name of what it describes, by domain and the value of its area.

    Args:
        texts: forms by worker.
        wrong: a corrupted database: by domain how many names too far it reads.
    """
    found: list[str] = []
    for text in texts.values():
        slots = parse_slots(text)
        for domain in dict.fromkeys(slot.partition("-")[0] for slot in slots):
            value = slots.get(f"{domain}-area", NONE)
            found += [f"{domain}-name", name_of(domain, value, (wrong or {}).get(domain, 0))]
    return " ".join(found)


def name_of(domain: str, value: str, shift: int = 0) -> str:
    """The name that a database has for a domain and an area; `none` without one.

    Args:
        domain: of the place.
        value: the area, in any style.
        shift: how many names further on a wrong database looks.
    """
    full = FULL.get(value, value)
    if full not in SHORT:
        return NONE
    return NAMES[(3 * DOMAINS.index(domain) + list(SHORT).index(full) + shift) % len(NAMES)]
