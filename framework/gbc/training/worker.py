"""What one process does with its part of a batch: run, attribute, take gradients; and what it tells the others."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import cast

import torch

from framework.core.collectives import all_gather_object, rank_and_size
from framework.core.errors import ConfigError, FrameworkError
from framework.core.random.seeding import seed_of
from framework.data.loading.batch import EpisodeBatch
from framework.gbc.attribution.attribute import attribute
from framework.gbc.attribution.options import AttributionOptions
from framework.gbc.attribution.results import Attribution
from framework.gbc.execution.budget import ATTRIBUTION, Budget, Meter, Spending
from framework.gbc.execution.loading import load_loss
from framework.gbc.execution.runner import RunOptions, Task
from framework.gbc.graph.spec import Graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import Loss
from framework.gbc.graph.yaml_config import make_function
from framework.gbc.language_models.agent_parameters import AgentParameters
from framework.gbc.language_models.straight_through import Target, trained_outputs
from framework.gbc.training.parameters import SoftConfig, StraightThroughGradients, straight_through_gradients
from framework.gbc.training.prompt_steps import AttributedError, example_of
from framework.gbc.training.rollouts import EpisodeResult, TasksOf, one_task, run_episodes, split_episodes
from framework.gbc.training.setup import Declared, System, target_of


@dataclass(frozen=True, kw_only=True)
class RankResult:
    """A process's part of a batch, as the others see it.

    Attributes:
        episodes: its tasks, without their traces.
        errors: those among them that were attributed.
        connected_share, num_traces: of its gradients, as in `StraightThroughGradients`.
        spent: since the last exchange, by agent.
        seconds: since the last exchange.
    """

    episodes: list[EpisodeResult]
    errors: list[AttributedError]
    connected_share: float
    num_traces: int
    spent: dict[str, Spending]
    seconds: float


class RolloutWorker:
    """A process's use of the system.

    Args:
        system: graph and models.
        loss: of a run.
        tasks_of: the tasks of an episode.
        soft: what is trained by gradient descent.
        target: the right output of a task, for that.
        run: how the graph runs.
        attribution: how errors are attributed.
        examples: runs with errors are exchanged whole, for a proposer that reads them.
        meter: notes what this process spends.
        budget: of all processes; every exchange is booked in it.
        seed: of models that sample.

    Attributes:
        attributed: by their places, the attributions of the last `attribute`: they stay with their process.
    """

    def __init__(
        self,
        system: System,
        *,
        loss: Loss,
        tasks_of: TasksOf,
        soft: SoftConfig | None,
        target: Callable[[Task], Target] | None,
        run: RunOptions,
        attribution: AttributionOptions,
        examples: bool,
        meter: Meter,
        budget: Budget,
        seed: int,
    ) -> None:
        self.system, self.loss, self.tasks_of = system, loss, tasks_of
        self.soft, self.target, self.run, self.attribution = soft, target, run, attribution
        self.examples, self.meter, self.budget, self.seed = examples, meter, budget, seed
        self.attributed: dict[tuple[int, int], Attribution] = {}
        for name, model in system.models.items():
            meter.watch(name, model)
        self.start_clock()

    def start_clock(self) -> None:
        """Time begins to count."""
        self._clock = time.monotonic()

    @contextmanager
    def synchronized(self, agent_parameters: AgentParameters) -> Generator[None]:
        """Context in which all processes use the models, the trained one with these parameters."""
        with self.system.collective_models.synchronized():
            if self.soft is not None:
                local = self.soft.local_model(self.system.graph, self.system.models)
                local.set_agent_parameters(agent_parameters)
            yield

    def run_episodes(
        self, graph: Graph, tasks: Sequence[tuple[EpisodeResult, Task]], *, epoch: int, training: bool = False
    ) -> list[EpisodeResult]:
        """Runs tasks and takes their losses, within `synchronized`.

        Args:
            graph: the system.
            tasks: as `split_episodes` gives them.
            epoch: the pass over the data, from 0; models that sample do so anew in every one.
            training: of a step: agents recite their targets where `soft.rollouts` says so.
        """
        options = replace(self.run, seed=seed_of("run", self.run.seed, self.seed, epoch))
        recites = training and self.soft is not None and self.soft.rollouts == "targets"
        target_of = self._recited if recites else None
        return run_episodes(graph, self.system.models, tasks, loss=self.loss, options=options, recited=target_of)

    def _recited(self, task: Task) -> Mapping[str, str]:
        """By agent what it recites; nothing for a task without a target, which `gradients` reports."""
        assert self.target is not None
        try:
            target = self.target(task)
        except ConfigError:
            raise
        except FrameworkError:
            return {}
        outputs = self.system.graph.outputs
        return target if not isinstance(target, str) else {outputs[0]: target} if len(outputs) == 1 else {}

    def tasks(self, batch: EpisodeBatch) -> list[tuple[EpisodeResult, Task]]:
        """The tasks of a batch."""
        indices = cast("list[int]", batch.indices.tolist())  # pyright: ignore[reportUnknownMemberType]
        return split_episodes(indices, batch.episodes, self.tasks_of)

    def run_shared(
        self, graph: Graph, tasks: Sequence[tuple[EpisodeResult, Task]], agent_parameters: AgentParameters
    ) -> list[EpisodeResult]:
        """Runs tasks that all processes have, each its share of them; gives the results of all.

        Args:
            graph: the system.
            tasks: the same on every process.
            agent_parameters: of the trained model.
        """
        rank, size = rank_and_size()
        with self.synchronized(agent_parameters):
            results = self.run_episodes(graph, tasks[rank::size], epoch=0)
        return all_episodes(self.exchange(results))

    def attribute(self, results: Sequence[EpisodeResult]) -> tuple[list[EpisodeResult], list[AttributedError]]:
        """What the errors are attributed to, within `synchronized`; a run that cannot be attributed has failed."""
        wrong = [each for each in results if each.loss is not None and each.loss.value > 0]
        try:
            found = list(zip(wrong, self._attribute(wrong), strict=True))
        except ConfigError:
            raise
        except FrameworkError:
            found = [(each, self._attribute_alone(each)) for each in wrong]
        failed: dict[tuple[int, int], EpisodeResult] = {}
        self.attributed = {}
        errors: list[AttributedError] = []
        for each, attribution in found:
            assert each.trace is not None
            assert each.loss is not None
            if isinstance(attribution, FrameworkError):
                failed[each.place] = replace(each, loss=None, failure=str(attribution))
                continue
            self.attributed[each.place] = attribution
            example = example_of(each.trace, each.loss, attribution) if self.examples else ""
            errors.append(
                AttributedError(place=each.place, loss=each.loss.value, credits=attribution.agents, example=example)
            )
        return [failed.get(each.place, each) for each in results], errors

    def _attribute_alone(self, result: EpisodeResult) -> Attribution | FrameworkError:
        try:
            return self._attribute([result])[0]
        except ConfigError:
            raise
        except FrameworkError as error:
            return error

    def _attribute(self, wrong: Sequence[EpisodeResult]) -> list[Attribution]:
        if not wrong:
            return []
        options, connections = self.attribution, self.attribution.connections
        if self.system.is_sharded:
            # Layers cannot be gathered within a batch of backward passes.
            gradients = replace(connections.gradients, gradients_at_once=1)
            options = replace(options, connections=replace(connections, gradients=gradients))
        traces = [each.trace for each in wrong if each.trace is not None]
        losses = [each.loss for each in wrong if each.loss is not None]
        agents = [step for trace in traces for step in trace.steps if step.kind == "agent"]
        tokens = sum(len(step.input_ids) + len(step.output_ids) for step in agents)
        with self.meter.booked(ATTRIBUTION, calls=len(agents), tokens=tokens):
            return attribute(traces, self.system.graph, self.system.models, losses, options)

    def gradients(
        self, results: Sequence[EpisodeResult], agent_parameters: AgentParameters, *, num_episodes: int
    ) -> tuple[list[EpisodeResult], StraightThroughGradients]:
        """The gradients of a batch, within `synchronized`; a task whose target is missing has failed.

        Args:
            results: of this process's tasks.
            agent_parameters: values at which the gradients are taken.
            num_episodes: episodes of the batch, which weigh alike.
        """
        zeros = tuple(map(torch.zeros_like, agent_parameters.values))
        # Where the others have theirs.
        value = zeros[0].new_zeros(()) if zeros else torch.zeros(())
        nothing = StraightThroughGradients(value=value, connected_share=0.0, num_traces=0, gradients=zeros)
        if self.soft is None or self.target is None:
            return list(results), nothing
        marked, trained = self._with_targets(results, self.soft.model, self.target)
        if not trained:
            return marked, nothing
        found = straight_through_gradients(
            self.soft.local_model(self.system.graph, self.system.models),
            self.soft.model,
            [trace for trace, _, _ in trained],
            [target for _, target, _ in trained],
            [weight / num_episodes for _, _, weight in trained],
            agent_parameters=agent_parameters,
            at_once=self.run.tasks_at_once,
            through_prompts=self.soft.through_prompts,
        )
        return marked, found

    def _with_targets(
        self, results: Sequence[EpisodeResult], name: str, target_of: Callable[[Task], Target]
    ) -> tuple[list[EpisodeResult], list[tuple[Trace, Target, float]]]:
        """All results, those without a target marked as failed; and traces with targets and weights to train on."""
        marked: list[EpisodeResult] = []
        trained: list[tuple[Trace, Target, float]] = []
        for each in results:
            if each.failure is None and each.trace is not None:
                try:
                    target = target_of(each.trace.task)
                except ConfigError:
                    raise
                except FrameworkError as error:
                    marked.append(replace(each, loss=None, failure=str(error)))
                    continue
                if trained_outputs(name, each.trace, target):
                    trained.append((each.trace, target, each.weight))
            marked.append(each)
        return marked, trained

    def exchange(
        self,
        results: Sequence[EpisodeResult],
        errors: Sequence[AttributedError] = (),
        found: StraightThroughGradients | None = None,
    ) -> list[RankResult]:
        """The parts of all processes, by rank; their spending is booked.

        Args:
            results: of this process's tasks.
            errors: those among them that were attributed.
            found: this process's gradients.
        """
        now = time.monotonic()
        own = RankResult(
            # Traces are large, and nobody else reads them.
            episodes=[replace(each, trace=None) for each in results],
            errors=list(errors),
            connected_share=0.0 if found is None else found.connected_share,
            num_traces=0 if found is None else found.num_traces,
            spent=self.meter.take(),
            seconds=now - self._clock,
        )
        self._clock = now
        ranks = all_gather_object(own)
        self.budget.add([rank.spent for rank in ranks], wall_seconds=max(rank.seconds for rank in ranks))
        return ranks


def make_worker(
    system: System,
    *,
    loss: Declared,
    tasks: Declared | None,
    soft: SoftConfig | None,
    run: RunOptions,
    attribution: AttributionOptions,
    examples: bool,
    budget: Budget,
    seed: int,
) -> RolloutWorker:
    """The worker of a recipe; the arguments are those of the recipe, where they are not `RolloutWorker`'s.

    Args:
        system: graph and models.
        loss: of a run, as `load_loss` reads it.
        tasks: of an episode, as `make_function` reads it; by default an episode is a task.
        soft: what is trained by gradient descent.
        run: how the graph runs.
        attribution: how errors are attributed.
        examples: runs with errors are exchanged whole.
        budget: that everything is booked in.
        seed: of models that sample.

    Raises:
        ConfigError: a function that cannot be made.
    """
    return RolloutWorker(
        system,
        loss=load_loss(loss),
        tasks_of=one_task if tasks is None else make_function(tasks),
        soft=soft,
        target=None if soft is None else target_of(soft.target),
        run=run,
        attribution=attribution,
        examples=examples,
        meter=Meter(budget.config.prices),
        budget=budget,
        seed=seed,
    )


def all_episodes(ranks: Sequence[RankResult]) -> list[EpisodeResult]:
    """The tasks of all processes, in the order of the samples."""
    return sorted((each for rank in ranks for each in rank.episodes), key=lambda each: each.place)


def all_errors(ranks: Sequence[RankResult]) -> list[AttributedError]:
    """The errors of all processes, in the order of the samples."""
    return sorted((each for rank in ranks for each in rank.errors), key=lambda each: each.place)
