"""What optimizers win back of the success that planted faults have cost, and in how many evaluations (ours)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from framework.core.console import tracked
from framework.gbc.attribution.options import AttributionOptions
from framework.gbc.execution.runner import RunOptions, Task, run_graph
from framework.gbc.graph.spec import Graph
from framework.gbc.graph.verbal_loss import Loss
from framework.gbc.language_models.interface import LanguageModel
from framework.gbc.prompt_search.candidates import Candidates
from framework.gbc.prompt_search.evidence import BlameKind
from framework.gbc.prompt_search.opro import Opro
from framework.gbc.prompt_search.search import OptimizeOptions, Proposer, optimize

RUN = RunOptions(on_empty="keep")
EVENLY = "spread evenly"
WON_BACK = 0.95
"""Share of what was lost at which a system counts as repaired."""
LEAST_LOST = 0.25
"""Share of the success that a fault must cost to be repaired."""


@dataclass(frozen=True, kw_only=True)
class Damage:
    """A faulty system and tasks on which the fault costs a quarter of the success or more.

    Attributes:
        graph: the faulty system.
        kind, culprit: of the fault, which is in a prompt.
        candidates: prompts of each agent to choose from, the healthy one among them.
        train, held_out: tasks.
        healthy, faulty: success on the held-out tasks, the share without any error.
    """

    graph: Graph
    kind: str
    culprit: str
    candidates: Mapping[str, Sequence[str]]
    train: tuple[Task, ...]
    held_out: tuple[Task, ...]
    healthy: float
    faulty: float


@dataclass(frozen=True, kw_only=True)
class Lead:
    """What leads an optimizer to an agent, and who writes the prompts that are tried.

    Attributes:
        by: the credit, or the diagnosis.
        attribution: how the credit is found.
        writer: of prompts, by `opro`; None for a choice among the candidates.
    """

    by: BlameKind = "own"
    attribution: AttributionOptions = AttributionOptions()
    writer: LanguageModel | None = None

    def proposer(self, damage: "Damage") -> Proposer:
        """What proposes prompts for a damage."""
        if self.writer is not None:
            return Opro(self.writer, by=self.by)
        return Candidates(damage.candidates, by=self.by)


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What became of a damage.

    Attributes:
        optimizer: its name.
        kind, culprit: of the fault.
        won_back: share of the lost success.
        evaluations: passes over the held-out tasks until 95 % was won back, the first one, before any change, not
            counted; all that were made where it never was.
        runs: runs of the graph until then, on all tasks.
        named_first: whether the first prompt that was changed is the culprit's.
    """

    optimizer: str
    kind: str
    culprit: str
    won_back: float
    evaluations: int
    runs: int
    named_first: bool


def success_of(graph: Graph, models: Mapping[str, LanguageModel], tasks: Sequence[Task], loss: Loss) -> float:
    """Share of the tasks that are solved without any error.

    Args:
        graph: the system.
        models: of its agents.
        tasks: with what was expected.
        loss: of a run that did not fail.
    """
    traces = run_graph(graph, models, tasks, options=RUN)
    return sum(trace.failure is None and loss(trace).value == 0 for trace in traces) / len(tasks)


def repair(
    models: Mapping[str, LanguageModel],
    damages: Sequence[Damage],
    loss: Loss,
    *,
    leads: Mapping[str, Lead],
    seed: int = 0,
) -> Iterator[Repair]:
    """Repairs every damage by `candidates`, or by `opro`, led in each way, and by `candidates` spread evenly.

    As many prompts are tried as there are candidates, at most.

    Args:
        models: of the agents.
        damages: to be repaired.
        loss: of a run that did not fail.
        leads: to the agent whose prompt is changed, by name.
        seed: of the optimizers.
    """
    for index, damage in enumerate(tracked(damages, "repairing faults", bar=False)):
        steps = sum(map(len, damage.candidates.values()))
        options = OptimizeOptions(steps=steps, batch_size=len(damage.train), seed=seed + index, run=RUN)
        for name, lead in leads.items():
            led = replace(options, attribution=lead.attribution)
            yield _repair(name, models, damage, loss, lead.proposer(damage), led)
        yield _repair(EVENLY, models, damage, loss, Candidates(damage.candidates, spread="even"), options)


def _repair(
    name: str,
    models: Mapping[str, LanguageModel],
    damage: Damage,
    loss: Loss,
    proposer: Proposer,
    options: OptimizeOptions,
) -> Repair:
    goal = damage.faulty + WON_BACK * (damage.healthy - damage.faulty)
    state, success = None, damage.faulty
    # A step at a time: whether it is repaired is judged by success, which the optimizer does not see.
    for step in range(options.steps):
        state = optimize(
            damage.graph,
            models,
            loss,
            proposer,
            train=damage.train,
            held_out=damage.held_out,
            options=replace(options, steps=step + 1),
            state=state,
        )
        if state.trials and state.trials[-1].kept:
            success = success_of(damage.graph.with_prompts(state.prompts), models, damage.held_out, loss)
        if success >= goal or state.finished:
            break
    assert state is not None
    return Repair(
        optimizer=name,
        kind=damage.kind,
        culprit=damage.culprit,
        won_back=(success - damage.faulty) / (damage.healthy - damage.faulty),
        evaluations=state.evaluations - 1,
        runs=state.runs,
        named_first=bool(state.trials) and damage.culprit in state.trials[0].changes,
    )
