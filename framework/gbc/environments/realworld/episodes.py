"""Failing episodes of real systems with planted faults; each culprit is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from framework.gbc.environments.realworld.systems import MODEL, PlantedFault, RealSystem
from framework.gbc.execution.runner import RunOptions, Task, run_graph
from framework.gbc.graph.spec import Graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import VerbalLoss, slot_loss
from framework.gbc.language_models.interface import LanguageModel

RUN = RunOptions(on_empty="keep")
DOUBLE = "double"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A task that the healthy system solves and the faulty one does not.

    Attributes:
        trace: of the faulty system.
        loss: of it, more than 0.
        culprits: the nodes whose fault alone makes the task fail.
    """

    trace: Trace
    loss: VerbalLoss
    culprits: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FaultySystem:
    """A system with one fault or two, the tasks that it fails at because of them, and some that it solves.

    Attributes:
        name: the system's and the faults' numbers.
        system: the healthy one.
        faults: what is wrong.
        graph: with the faults.
        failures: runs that failed.
        successes: runs without a loss.
    """

    name: str
    system: RealSystem
    faults: tuple[PlantedFault, ...]
    graph: Graph
    failures: tuple[Failure, ...]
    successes: tuple[Trace, ...]

    @property
    def kind(self) -> str:
        """Of its fault."""
        return self.faults[0].kind if len(self.faults) == 1 else DOUBLE

    @property
    def nodes(self) -> tuple[str, ...]:
        """The agents and tools, any of which could be the culprit."""
        return tuple(node.name for node in (*self.graph.agents, *self.graph.tools))


def healthy_share(system: RealSystem, model: LanguageModel) -> float:
    """The share of its tasks that a healthy system solves."""
    tasks = system.numbered_tasks()
    return len(_solved(system.graph, model, tasks)) / len(tasks)


def plant_faults(
    system: RealSystem, model: LanguageModel, *, most_failures: int = 6, num_doubles: int = 3
) -> list[FaultySystem]:
    """The faulty versions of a system that fail at some task.

    Args:
        system: the healthy one.
        model: of its agents, greedy.
        most_failures: of each fault; more tests say the same again.
        num_doubles: pairs of faults in different nodes, the pairs furthest apart in the list first.
    """
    tasks = [trace.task for trace in _solved(system.graph, model, system.numbered_tasks())]
    numbers = [(number,) for number in range(len(system.faults))]
    pairs = [pair for pair in combinations(range(len(system.faults)), 2) if _apart(system, pair)]
    pairs.sort(key=lambda pair: (sum(pair) * 7 + pair[0] * 3) % 11)
    failing = {
        number: {trace.id for trace in _runs(fault.planted(system.graph), model, tasks) if _loss(trace).value > 0}
        for number, fault in enumerate(system.faults)
    }
    found: list[FaultySystem] = []
    for chosen in (*numbers, *pairs[:num_doubles]):
        faults = tuple(system.faults[number] for number in chosen)
        graph = system.graph
        for fault in faults:
            graph = fault.planted(graph)
        traces = [trace for trace in _runs(graph, model, tasks) if trace.failure is None]
        failures = [
            Failure(
                trace=trace,
                loss=_loss(trace),
                culprits=tuple(system.faults[number].node for number in chosen if trace.id in failing[number]),
            )
            for trace in traces
            if _loss(trace).value > 0
        ]
        failures = [failure for failure in failures if failure.culprits]
        if failures:
            found.append(
                FaultySystem(
                    name="-".join([system.name, *map(str, chosen)]),
                    system=system,
                    faults=faults,
                    graph=graph,
                    failures=tuple(failures[:most_failures]),
                    successes=tuple(trace for trace in traces if _loss(trace).value == 0)[:most_failures],
                )
            )
    return found


def _apart(system: RealSystem, pair: tuple[int, ...]) -> bool:
    return len({system.faults[number].node for number in pair}) == len(pair)


def _runs(graph: Graph, model: LanguageModel, tasks: Sequence[Task]) -> list[Trace]:
    return list(run_graph(graph, {MODEL: model}, tasks, options=RUN))


def _solved(graph: Graph, model: LanguageModel, tasks: Sequence[Task]) -> list[Trace]:
    return [trace for trace in _runs(graph, model, tasks) if trace.failure is None and _loss(trace).value == 0]


def _loss(trace: Trace) -> VerbalLoss:
    return VerbalLoss(value=1.0, text=trace.failure) if trace.failure is not None else slot_loss(trace)
