"""The search for prompts: propose, try on held-out tasks, keep only what helps.

One loop, `PromptSearch`, for `framework optimize` and for training: a function of what all processes have seen, so the
number of processes changes nothing. A search that is killed between a proposal and its decision makes both again.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from framework.core.collectives import broadcast_object, rank_and_size
from framework.core.console import tracked, working
from framework.core.errors import ConfigError, FrameworkError, TrainingError
from framework.gbc.attribution.options import AttributionOptions
from framework.gbc.execution.runner import RunOptions, Task, run_graph
from framework.gbc.graph.spec import Graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import Loss
from framework.gbc.language_models.interface import LanguageModel
from framework.gbc.prompt_search.evidence import Evidence, gather_evidence
from framework.gbc.prompt_search.state import OptimizerState, Trial, save_state

TaskKind = Literal["training", "held-out"]


@dataclass(frozen=True, kw_only=True)
class OptimizeOptions:
    """How long, and with how much evidence.

    Args:
        steps: upper bound, 1 or more.
        batch_size: training tasks that are run and attributed in each, 1 or more.
        min_gain: a change is kept if it lowers the held-out loss by more than this.
        goal: held-out loss at which the search ends.
        failed_loss: value of a run that failed.
        seed: of the choice of tasks and of the proposals.
        run: how the graph runs.
        attribution: how errors are attributed.
    """

    steps: int = 20
    batch_size: int = 8
    min_gain: float = 0.0
    goal: float = 0.0
    failed_loss: float = 1.0
    seed: int = 0
    run: RunOptions = RunOptions()
    attribution: AttributionOptions = AttributionOptions()

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or self.min_gain < 0:
            problem = f"steps {self.steps}, batch_size {self.batch_size}, min_gain {self.min_gain}"
            raise ConfigError(problem, hint="use 1 or more steps and tasks, and a gain of 0 or more")


@dataclass(frozen=True, kw_only=True)
class TaskRuns:
    """What became of tasks that were run together.

    Attributes:
        kind: what they are for.
        num_tasks: how many there were.
        failures: the reason of each that failed.
    """

    kind: TaskKind
    num_tasks: int
    failures: tuple[str, ...]


@runtime_checkable
class Proposer(Protocol):
    """What changes prompts: `Candidates`, `Opro`."""

    needs_attribution: bool
    """Whether training tasks are attributed for it."""
    needs_diagnosis: bool
    """Whether those that failed are also diagnosed together."""

    def propose(self, state: OptimizerState, evidence: Evidence, generator: random.Random) -> Sequence[dict[str, str]]:
        """Changes to try, each new prompts by agent.

        Args:
            state: what was tried so far.
            evidence: errors with the current prompts, and what they are attributed to.
            generator: of random choices.
        """
        ...

    def is_done(self, state: OptimizerState, graph: Graph) -> bool:
        """Whether it has nothing left to propose."""
        ...


class PromptSearch:
    """The loop: each step proposes changes, tries each on the held-out tasks, and keeps those that help.

    Random numbers are a function of the seed and the step. With several processes, all of them call `step`; the first
    one alone proposes and decides.

    Attributes:
        state: what was tried, and the best prompts; None before the first step.
        num_failed_proposals: steps without a proposal because its model failed.
        loss_before: held-out loss of the prompts that the last step began with; None before the first.

    Args:
        graph: the system, with the prompts that the search begins with.
        proposer: what changes prompts.
        seed: of the proposals.
        evaluate: mean loss of a graph over the held-out tasks.
        evidence: what proposals rest on, for a graph with the current prompts; it may draw from the generator.
        min_gain: a change is kept if it lowers the held-out loss by more than this.
        goal: held-out loss at which the search ends.
        runs_per_evaluation: runs of the graph that `evaluate` takes, for the count in the state.
        synchronized: context in which the proposer uses models.
        loss_drifts: the held-out loss changes between steps, since something else is trained: it is measured anew.
        skip_failed_proposals: a step whose proposing model fails is counted and tries nothing; otherwise it raises.
    """

    def __init__(
        self,
        graph: Graph,
        proposer: Proposer,
        *,
        seed: int,
        evaluate: Callable[[Graph], float],
        evidence: Callable[[Graph, random.Random], Evidence],
        min_gain: float = 0.0,
        goal: float = 0.0,
        runs_per_evaluation: int = 0,
        synchronized: Callable[[], AbstractContextManager[None]] = nullcontext,
        loss_drifts: bool = False,
        skip_failed_proposals: bool = False,
    ) -> None:
        self.graph, self.proposer, self.seed = graph, proposer, seed
        self.evaluate, self.evidence = evaluate, evidence
        self.min_gain, self.goal, self.runs_per_evaluation = min_gain, goal, runs_per_evaluation
        self.synchronized, self.loss_drifts = synchronized, loss_drifts
        self.skip_failed_proposals = skip_failed_proposals
        self.state: OptimizerState | None = None
        self.num_failed_proposals = 0
        self.loss_before: float | None = None

    @property
    def prompts(self) -> dict[str, str]:
        """The best so far."""
        return self.graph.prompts if self.state is None else self.state.prompts

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to try, or the goal is reached."""
        return self.state is not None and self.state.finished

    def step(self, *, stop: Callable[[], bool] = lambda: False) -> tuple[Trial, ...]:
        """Proposes, tries and decides; gives the new trials.

        Args:
            stop: whether no further trial may begin.

        Raises:
            FrameworkError: what the proposer raises, unless failed proposals are skipped.
        """
        state = self._measured()
        self.loss_before = state.loss
        if state.finished or state.loss <= self.goal or self.proposer.is_done(state, self.graph):
            self.state = replace(state, finished=True)
            return ()
        before = len(state.trials)
        state, proposals = self._propose(state)
        for changes in proposals:
            if stop():
                break
            state = self._try(state, changes)
        self.state = replace(state, step=state.step + 1)
        return self.state.trials[before:]

    def _measured(self) -> OptimizerState:
        """The state, with a held-out loss that is up to date."""
        state = self.state
        if state is not None and (not self.loss_drifts or state.finished):
            return state
        loss = broadcast_object(self.evaluate(self.graph.with_prompts(self.prompts)))
        runs = self.runs_per_evaluation
        if state is not None:
            return replace(state, loss=loss, evaluations=state.evaluations + 1, runs=state.runs + runs)
        return OptimizerState(seed=self.seed, step=0, prompts=self.prompts, loss=loss, evaluations=1, runs=runs)

    def _propose(self, state: OptimizerState) -> tuple[OptimizerState, list[dict[str, str]]]:
        """The changes to try, and the state with the runs that they took."""
        generator = random.Random(f"{state.seed}/{state.step}")
        evidence = self.evidence(self.graph.with_prompts(state.prompts), generator)
        changes: list[dict[str, str]] = []
        problem = ""
        with self.synchronized():
            if rank_and_size()[0] == 0:
                try:
                    changes = list(self.proposer.propose(state, evidence, generator))
                except ConfigError:
                    raise
                except FrameworkError as error:
                    if not self.skip_failed_proposals:
                        raise
                    problem = str(error)
        changes, problem = broadcast_object((changes, problem))
        self.num_failed_proposals += bool(problem)
        return replace(state, runs=state.runs + evidence.num_runs), changes

    def _try(self, state: OptimizerState, changes: Mapping[str, str]) -> OptimizerState:
        prompts = {**state.prompts, **changes}
        loss = self.evaluate(self.graph.with_prompts(prompts))
        # Decided once: processes whose arithmetic differs in the last bit must not part.
        kept = broadcast_object(loss < state.loss - self.min_gain)
        trial = Trial(step=state.step, changes=dict(changes), loss=loss, kept=kept, loss_before=state.loss)
        return replace(
            state,
            prompts=prompts if kept else state.prompts,
            loss=loss if kept else state.loss,
            evaluations=state.evaluations + 1,
            runs=state.runs + self.runs_per_evaluation,
            trials=(*state.trials, trial),
        )


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
    on_step: Callable[[OptimizerState], None] = lambda state: None,
    on_runs: Callable[[TaskRuns], None] = lambda runs: None,
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
        on_step: called after every step, once its state is saved.
        on_runs: called after tasks have run, with those that failed.

    Raises:
        ConfigError: no tasks, or a state with other agents or another seed.
        TrainingError: every task failed, whatever the prompts.
    """
    if not train or not held_out:
        raise ConfigError(f"{len(train)} training tasks, {len(held_out)} held out", hint="give some of both")
    if state is not None and (state.prompts.keys() != graph.prompts.keys() or state.seed != options.seed):
        raise ConfigError("the state is of another graph or seed", hint="use the graph and the seed that it began with")
    rollouts = _Rollouts(models, loss, train, held_out, options, proposer, on_runs)
    search = PromptSearch(
        graph,
        proposer,
        seed=options.seed,
        evaluate=rollouts.evaluate,
        evidence=rollouts.evidence,
        min_gain=options.min_gain,
        goal=options.goal,
        runs_per_evaluation=len(held_out),
    )
    search.state = state
    while search.state is None or (search.state.step < options.steps and not search.finished):
        tried = search.step()
        assert search.state is not None
        if not tried:
            rollouts.refuse_where_all_failed()
        if save_to is not None:
            save_state(save_to, search.state)
        on_step(search.state)
    rollouts.refuse_where_all_failed()
    return search.state


@dataclass
class _Rollouts:
    """Runs of the tasks of an optimization, and what became of them."""

    models: Mapping[str, LanguageModel]
    loss: Loss
    train: Sequence[Task]
    held_out: Sequence[Task]
    options: OptimizeOptions
    proposer: Proposer
    on_runs: Callable[[TaskRuns], None]
    num_finished: int = 0
    first_failure: str = ""

    def evaluate(self, graph: Graph) -> float:
        """Mean loss of a graph over the held-out tasks."""
        traces = self._run(graph, "held-out", self.held_out)
        return mean_loss(traces, self.loss, failed_loss=self.options.failed_loss)

    def evidence(self, graph: Graph, generator: random.Random) -> Evidence:
        """What proposals rest on: errors of some training tasks."""
        count = min(self.options.batch_size, len(self.train)) if self.proposer.needs_attribution else 0
        traces = self._run(graph, "training", generator.sample(list(self.train), count))
        with working("attributing"):
            diagnosed = self.proposer.needs_diagnosis
            return gather_evidence(graph, self.models, self.loss, traces, self.options.attribution, diagnosed=diagnosed)

    def refuse_where_all_failed(self) -> None:
        """Raises TrainingError if tasks ran and none of them ever finished."""
        if self.first_failure and not self.num_finished:
            problem = f"every task failed, with every prompt that was tried; the first: {self.first_failure}"
            raise TrainingError(problem, hint="correct what fails; `framework agents run` shows each task")

    def _run(self, graph: Graph, kind: TaskKind, tasks: Sequence[Task]) -> list[Trace]:
        finished = run_graph(graph, self.models, tasks, options=self.options.run)
        traces = list(tracked(finished, f"{kind} tasks", total=len(tasks)))
        failures = tuple(trace.failure for trace in traces if trace.failure is not None)
        self.num_finished += len(traces) - len(failures)
        self.first_failure = self.first_failure or next(iter(failures), "")
        self.on_runs(TaskRuns(kind=kind, num_tasks=len(traces), failures=failures))
        return traces


def mean_loss(traces: Sequence[Trace], loss: Loss, *, failed_loss: float) -> float:
    """Mean loss of runs.

    Args:
        traces: at least one.
        loss: of a trace that did not fail.
        failed_loss: of one that did.
    """
    values = [loss(trace).value if trace.failure is None else failed_loss for trace in traces]
    return sum(values) / len(values)
