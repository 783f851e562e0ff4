"""Faults that are planted in a known node: five kinds, each wrong for this system and right for another (ours)."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from framework.core.errors import ConfigError
from framework.gbc.environments.microworld.system import (
    DATABASES,
    DOMAINS,
    FIELDS,
    NAMES,
    NOTHING,
    STYLES,
    Row,
    Rows,
    System,
    look_up,
    make_graph,
)
from framework.gbc.graph.spec import Graph


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault that was planted.

    Attributes:
        kind: one of `KINDS`.
        culprit: the node that it is in.
        graph: the system with the fault.
        words: what was done.
    """

    kind: str
    culprit: str
    graph: Graph
    words: str


def plant(system: System, kind: str, *, seed: int, culprit: str | None = None) -> Fault:
    """A system with a fault, drawn by a seed.

    Args:
        system: the healthy one.
        kind: one of `KINDS`.
        seed: of the culprit and of what is wrong with it.
        culprit: the node; by default drawn among those that can have such a fault.

    Raises:
        ConfigError: no such kind, or a node that cannot have it.
    """
    if kind not in KINDS:
        raise ConfigError(f"fault {kind!r}", hint=f"use one of {', '.join(KINDS)}")
    graph, rng = make_graph(system), random.Random(f"fault/{kind}/{seed}")
    names = KINDS[kind].nodes(system, graph)
    if culprit is not None and culprit not in names:
        raise ConfigError(f"the fault {kind!r} in {culprit!r}", hint=f"use one of {', '.join(names)}")
    name = culprit or rng.choice(names)
    faulty, words = KINDS[kind].make(system, graph, name, rng)
    return Fault(kind=kind, culprit=name, graph=faulty, words=words)


def _writers(system: System, graph: Graph) -> Sequence[str]:
    return (*system.workers, "responder")


def _with_rows(system: System, graph: Graph, name: str, rows: Rows) -> Graph:
    workers = {**system.workers, name: rows} if name in system.workers else system.workers
    changed = replace(system, workers=workers, responder=rows if name == "responder" else system.responder)
    return graph.with_prompts({name: changed.prompts()[name]})


def _rows(system: System, name: str) -> Rows:
    return system.workers.get(name, system.responder)


def _drop(system: System, graph: Graph, name: str, rng: random.Random) -> tuple[Graph, str]:
    rows = dict(_rows(system, name))
    field = rng.choice([field for field in FIELDS if rows[field].source != NOTHING])
    rows[field] = replace(rows[field], source=NOTHING)
    return _with_rows(system, graph, name, rows), f"{name} drops {field}"


def _swap(system: System, graph: Graph, name: str, rng: random.Random) -> tuple[Graph, str]:
    rows = dict(_rows(system, name))
    one, other = rng.sample([field for field in FIELDS if rows[field].source != NOTHING], 2)
    first, second = rows[one], rows[other]
    rows |= {one: replace(first, source=second.source), other: replace(second, source=first.source)}
    return _with_rows(system, graph, name, rows), f"{name} swaps {one} and {other}"


def _format(system: System, graph: Graph, name: str, rng: random.Random) -> tuple[Graph, str]:
    rows: dict[str, Row] = dict(_rows(system, name))
    field = rng.choice([field for field in FIELDS if rows[field].source != NOTHING])
    (style,) = (style for style in STYLES if style != rows[field].style)
    rows[field] = replace(rows[field], style=style)
    return _with_rows(system, graph, name, rows), f"{name} writes {field} {style}"


def _route(system: System, graph: Graph, name: str, rng: random.Random) -> tuple[Graph, str]:
    worker = rng.choice(list(system.workers))
    domain = rng.choice([other for other in (*DOMAINS, NOTHING) if other != system.routes[worker]])
    changed = replace(system, routes={**system.routes, worker: domain})
    return graph.with_prompts({name: changed.prompts()[name]}), f"{name} sends {worker} for {domain}"


def _corrupt(system: System, graph: Graph, name: str, rng: random.Random) -> tuple[Graph, str]:
    domain = rng.choice([domain for domain in system.domains if domain in DATABASES[name]])
    function = partial(look_up, wrong={domain: rng.randrange(1, len(NAMES))})
    tools = tuple(replace(tool, function=function) if tool.name == name else tool for tool in graph.tools)
    return replace(graph, tools=tools), f"{name} gives another name for {domain}"


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """Where a fault can be, and how it is made: (system, graph, node, random numbers) to the graph and words."""

    nodes: Callable[[System, Graph], Sequence[str]]
    make: Callable[[System, Graph, str, random.Random], tuple[Graph, str]]


KINDS: Mapping[str, _Kind] = {
    "drop": _Kind(nodes=_writers, make=_drop),
    "swap": _Kind(nodes=_writers, make=_swap),
    "format": _Kind(nodes=lambda system, graph: tuple(system.workers), make=_format),
    "route": _Kind(nodes=lambda system, graph: ("manager",), make=_route),
    "tool": _Kind(nodes=lambda system, graph: tuple(tool.name for tool in graph.tools), make=_corrupt),
}
"""Prompt drops a field, prompt swaps two fields, wrong format, wrong route, corrupted tool result."""
