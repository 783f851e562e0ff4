"""From a declared graph to the acyclic one that runs: loops unrolled, nodes in levels."""

from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Literal

from framework.core.errors import ConfigError
from framework.gbc.graph.spec import Condition, Estimator, Graph, Loop, Node, UserTurn, reads_of

Sources = tuple[str, ...]
"""Steps of one declared node, the latest round first: the first that ran is meant."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A condition on whichever of `sources` ran last; not met when none of them ran."""

    condition: Condition
    sources: Sources
    stops: bool = False
    """The end of a loop: the step runs as long as the condition does not hold."""


@dataclass(frozen=True, kw_only=True)
class PlannedStep:
    """One run of a node.

    Attributes:
        name: the node's, in a loop with its round: `review@2`.
        node: as declared.
        reads: for each declared upstream, the steps that may stand for it.
        gates: all must be open for the step to run.
        level: steps of one level do not depend on each other.
    """

    name: str
    node: Node
    reads: Mapping[str, Sources]
    gates: tuple[Gate, ...]
    level: int


@dataclass(frozen=True, kw_only=True)
class Edge:
    """A possible connection between two steps; one of `control`, always `pass_through`, decides if the target runs."""

    source: str
    target: str
    kind: Literal["message", "control"]
    estimator: Estimator


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The acyclic graph.

    Attributes:
        graph: as declared.
        steps: in topological order.
        outputs: for each output node, the steps that may stand for it.
    """

    graph: Graph
    steps: tuple[PlannedStep, ...]
    outputs: tuple[Sources, ...]

    @property
    def levels(self) -> list[list[PlannedStep]]:
        """The steps by level."""
        levels: list[list[PlannedStep]] = [[] for _ in range(1 + max(step.level for step in self.steps))]
        for step in self.steps:
            levels[step.level].append(step)
        return levels

    @property
    def edges(self) -> list[Edge]:
        """Every connection that a run may use."""
        edges: list[Edge] = []
        for step in self.steps:
            estimator = "pass_through" if isinstance(step.node, UserTurn) else step.node.estimator
            edges += [
                Edge(source=source, target=step.name, kind="message", estimator=estimator)
                for sources in step.reads.values()
                for source in sources
            ]
            edges += [
                Edge(source=source, target=step.name, kind="control", estimator="pass_through")
                for gate in step.gates
                for source in gate.sources
            ]
        return edges


def unroll(graph: Graph) -> Plan:
    """The plan of a graph.

    Raises:
        ConfigError: a cycle that no loop bounds.
    """
    loops = {name: loop for loop in graph.loops for name in loop.body}
    drafts: dict[str, tuple[Node, dict[str, Sources], tuple[Gate, ...]]] = {}
    for node in graph.nodes.values():
        for round_ in range(1, (loops[node.name].times if node.name in loops else 1) + 1):
            drafts[_step_name(node.name, round_, loops)] = _draft(node, round_, loops)
    upstream = {name: _upstream(reads, gates) for name, (_, reads, gates) in drafts.items()}
    try:
        order = list(TopologicalSorter({name: sorted(above) for name, above in upstream.items()}).static_order())
    except CycleError as error:
        cycle = " -> ".join(dict.fromkeys(name.partition("@")[0] for name in reversed(error.args[1])))
        raise ConfigError(f"a cycle without a bound: {cycle}", hint="declare a loop over these nodes") from None
    levels: dict[str, int] = {}
    for name in order:
        levels[name] = 1 + max((levels[above] for above in upstream[name]), default=-1)
    steps = [
        PlannedStep(name=name, node=node, reads=reads, gates=gates, level=levels[name])
        for name, (node, reads, gates) in drafts.items()
    ]
    return Plan(
        graph=graph,
        steps=tuple(sorted(steps, key=lambda step: step.level)),
        outputs=tuple(_seen_from_outside(name, loops) for name in graph.outputs),
    )


def _draft(node: Node, round_: int, loops: Mapping[str, Loop]) -> tuple[Node, dict[str, Sources], tuple[Gate, ...]]:
    reads = {name: _sources(name, node.name, round_, loops) for name in reads_of(node)}
    gates: list[Gate] = []
    if not isinstance(node, UserTurn) and node.when is not None:
        gates.append(Gate(condition=node.when, sources=_sources(node.when.source, node.name, round_, loops)))
    loop = loops.get(node.name)
    if loop is not None and loop.until is not None and round_ > 1:
        before = _step_name(loop.until.source, round_ - 1, loops)
        gates.append(Gate(condition=loop.until, sources=(before,), stops=True))
    return node, {name: sources for name, sources in reads.items() if sources}, tuple(gates)


def _sources(name: str, node: str, round_: int, loops: Mapping[str, Loop]) -> Sources:
    """The steps that `name` stands for in a round of `node`, which reads it."""
    loop = loops.get(name)
    if loop is None or node not in loop.body:
        return _seen_from_outside(name, loops)
    earlier = loop.body.index(name) < loop.body.index(node)
    last = round_ if earlier else round_ - 1
    return (_step_name(name, last, loops),) if last else ()


def _seen_from_outside(name: str, loops: Mapping[str, Loop]) -> Sources:
    times = loops[name].times if name in loops else 1
    return tuple(_step_name(name, round_, loops) for round_ in range(times, 0, -1))


def _step_name(name: str, round_: int, loops: Mapping[str, Loop]) -> str:
    return f"{name}@{round_}" if name in loops else name


def _upstream(reads: Mapping[str, Sources], gates: tuple[Gate, ...]) -> set[str]:
    return {name for sources in [*reads.values(), *(gate.sources for gate in gates)] for name in sources}
