"""Propose, try on held-out tasks, keep only what helps."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from framework.core.errors import ConfigError
from framework.gbc.attribution.attribute import attribute
from framework.gbc.attribution.results import AgentCredit, Attribution, AttributionOptions, mean_credits
from framework.gbc.execution.runner import LanguageModel, RunOptions, Task, run_graph
from framework.gbc.graph.spec import Graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import Loss, VerbalLoss
from framework.gbc.prompt_search.state import OptimizerState, Trial, save_state

Blame = Literal["walk", "own", "through"]
"""The credit that blames: of the walk, what ends at an agent, or what passes through it."""


@dataclass(frozen=True, kw_only=True)
class OptimizeOptions:
    """How long, and with how much evidence.

    Args:
        steps: most steps.
        batch_size: training tasks that are run and attributed in each.
        min_gain: a change is kept if it lowers the held-out loss by more than this.
        goal: held-out loss at which to end.
        failed_loss: value of a run that failed.
        seed: of the choice of tasks and of proposals.
        run: how the graph runs.
        attribution: how blame is found.
    """

    steps: int = 20
    batch_size: int = 8
    min_gain: float = 0.0
    goal: float = 0.0
    failed_loss: float = 1.0
    seed: int = 0
    run: RunOptions = RunOptions()  # noqa: RUF009 - frozen
    attribution: AttributionOptions = AttributionOptions()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or self.min_gain < 0:
            problem = f"steps {self.steps}, batch_size {self.batch_size}, min_gain {self.min_gain}"
            raise ConfigError(problem, hint="use 1 or more steps and tasks, and a gain of 0 or more")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a proposal may rest on.

    Attributes:
        graph: with the current prompts.
        traces: of training tasks, those that did not fail and whose loss is not 0.
        losses: of each trace.
        attributions: of each trace.
        credits: means over the traces.
    """

    graph: Graph
    traces: tuple[Trace, ...]
    losses: tuple[VerbalLoss, ...]
    attributions: tuple[Attribution, ...]
    credits: tuple[AgentCredit, ...]

    def credit_of(self, agent: str) -> AgentCredit:
        """The mean credit of an agent; zero if it ran in no trace."""
        none = AgentCredit(name=agent, through=0.0, own=0.0, walk=0.0)
        return next((credit for credit in self.credits if credit.name == agent), none)

    def blame_of(self, agent: str, by: Blame) -> tuple[float, float]:
        """What agents are compared by: a credit, and of equals the walk's."""
        credit = self.credit_of(agent)
        return getattr(credit, by), credit.walk


@runtime_checkable
class Proposer(Protocol):
    """What changes prompts: `Candidates`, `Opro`."""

    needs_blame: bool
    """Whether training tasks are attributed for it."""

    def propose(self, state: OptimizerState, evidence: Evidence, generator: random.Random) -> Sequence[dict[str, str]]:
        """Changes to try, each new prompts by agent."""
        ...

    def is_done(self, state: OptimizerState, graph: Graph) -> bool:
        """Whether it has nothing left to propose."""
        ...


def optimize(
    graph: Graph,
    models: Mapping[str, LanguageModel],
    loss: Loss,
    proposer: Proposer,
    *,
    train: Sequence[Task],
    held_out: Sequence[Task],
    options: OptimizeOptions = OptimizeOptions(),
    state: OptimizerState | None = None,
    save_to: str | Path | None = None,
) -> OptimizerState:
    """Improves the prompts of a graph.

    Args:
        graph: the system; its prompts are where a new optimization begins.
        models: by the names that the agents use.
        loss: of a trace that did not fail.
        proposer: what changes prompts.
        train: tasks whose traces are attributed.
        held_out: tasks that decide what is kept.
        options: how long.
        state: to go on from.
        save_to: file for the state, written after every step.

    Raises:
        ConfigError: no tasks, or a state with other agents or another seed.
    """
    if not train or not held_out:
        raise ConfigError(f"{len(train)} training tasks, {len(held_out)} held out", hint="give some of both")
    if state is None:
        first = _mean_loss(graph, models, loss, held_out, options)
        state = OptimizerState(
            seed=options.seed, step=0, prompts=graph.prompts, loss=first, evaluations=1, runs=len(held_out)
        )
    elif state.prompts.keys() != graph.prompts.keys() or state.seed != options.seed:
        raise ConfigError("the state is of another graph or seed", hint="use the graph and the seed that it began with")
    while state.step < options.steps and not state.finished:
        state = _step(state, graph, models, loss, proposer, train, held_out, options)
        if save_to is not None:
            save_state(save_to, state)
    return state


def _step(
    state: OptimizerState,
    graph: Graph,
    models: Mapping[str, LanguageModel],
    loss: Loss,
    proposer: Proposer,
    train: Sequence[Task],
    held_out: Sequence[Task],
    options: OptimizeOptions,
) -> OptimizerState:
    if state.loss <= options.goal or proposer.is_done(state, graph):
        return replace(state, finished=True)
    generator = random.Random(f"{state.seed}/{state.step}")
    tasks = generator.sample(list(train), min(options.batch_size, len(train))) if proposer.needs_blame else []
    evidence = _evidence(graph.with_prompts(state.prompts), models, loss, tasks, options)
    state = replace(state, runs=state.runs + len(tasks))
    for changes in proposer.propose(state, evidence, generator):
        prompts = {**state.prompts, **changes}
        found = _mean_loss(graph.with_prompts(prompts), models, loss, held_out, options)
        kept = found < state.loss - options.min_gain
        state = replace(
            state,
            prompts=prompts if kept else state.prompts,
            loss=found if kept else state.loss,
            evaluations=state.evaluations + 1,
            runs=state.runs + len(held_out),
            trials=(*state.trials, Trial(step=state.step, changes=dict(changes), loss=found, kept=kept)),
        )
    return replace(state, step=state.step + 1)


def _evidence(
    graph: Graph, models: Mapping[str, LanguageModel], loss: Loss, tasks: Sequence[Task], options: OptimizeOptions
) -> Evidence:
    traces = [trace for trace in run_graph(graph, models, tasks, options=options.run) if trace.failure is None]
    pairs = [(trace, found) for trace, found in ((trace, loss(trace)) for trace in traces) if found.value > 0]
    bad, losses = [trace for trace, _ in pairs], [found for _, found in pairs]
    attributions = attribute(bad, graph, models, losses, options.attribution) if pairs else []
    return Evidence(
        graph=graph,
        traces=tuple(bad),
        losses=tuple(losses),
        attributions=tuple(attributions),
        credits=mean_credits(attributions),
    )


def _mean_loss(
    graph: Graph, models: Mapping[str, LanguageModel], loss: Loss, tasks: Sequence[Task], options: OptimizeOptions
) -> float:
    values = [
        loss(trace).value if trace.failure is None else options.failed_loss
        for trace in run_graph(graph, models, tasks, options=options.run)
    ]
    return sum(values) / len(values)
