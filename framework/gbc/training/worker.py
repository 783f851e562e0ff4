"""What one process does with its part of a batch: run, judge, blame, take gradients; and what it tells the others."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from framework.core.collectives import all_gather_object
from framework.core.errors import ConfigError, FrameworkError
from framework.core.seeding import seed_of
from framework.gbc.attribution.attribute import attribute
from framework.gbc.attribution.results import Attribution, AttributionOptions
from framework.gbc.execution.budget import ATTRIBUTION, Meter, Spending
from framework.gbc.execution.runner import RunOptions, Task
from framework.gbc.graph.spec import Graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import Loss
from framework.gbc.language_models.agent_parameters import AgentParameters
from framework.gbc.language_models.straight_through import Target, trained_outputs
from framework.gbc.training.parameters import Flow, SoftConfig, flow_gradients
from framework.gbc.training.prompt_steps import AttributedError, example_of
from framework.gbc.training.rollouts import EpisodeResult, TasksOf, play
from framework.gbc.training.setup import System


@dataclass(frozen=True, kw_only=True)
class RankResult:
    """A process's part of a batch, as the others see it.

    Attributes:
        played: its tasks, without their traces.
        blamed: the errors among them.
        value, flowing, num_traces: of its gradients, as in `Flow`.
        spent: since the last share, by agent.
        seconds: since the last share.
    """

    played: list[EpisodeResult]
    blamed: list[AttributedError]
    value: float
    flowing: float
    num_traces: int
    spent: dict[str, Spending]
    seconds: float


class RolloutWorker:
    """A process's use of the system.

    Args:
        system: graph and models.
        judge: the loss of a run.
        tasks_of: the tasks of an episode.
        soft: what is trained by gradient descent.
        target: the right output of a task, for that.
        run, attribution: how the graph runs and blame is found.
        examples: runs with errors are told whole, for a proposer that reads them.
        meter: notes what is spent.
        seed: of models that sample.

    Attributes:
        attributed: by their places, the attributions of the last `blame`: they stay with their process.
    """

    def __init__(
        self,
        system: System,
        *,
        judge: Loss,
        tasks_of: TasksOf,
        soft: SoftConfig | None,
        target: Callable[[Task], Target] | None,
        run: RunOptions,
        attribution: AttributionOptions,
        examples: bool,
        meter: Meter,
        seed: int,
    ) -> None:
        self.system, self.judge, self.tasks_of = system, judge, tasks_of
        self.soft, self.target, self.run, self.attribution = soft, target, run, attribution
        self.examples, self.meter, self.seed = examples, meter, seed
        self.attributed: dict[tuple[int, int], Attribution] = {}
        for name, model in system.models.items():
            meter.watch(name, model)
        self.start_clock()

    def start_clock(self) -> None:
        """Time begins to count."""
        self._clock = time.monotonic()

    @contextmanager
    def together(self, agent_parameters: AgentParameters) -> Iterator[None]:
        """The models in use on all processes, the trained one steered."""
        with self.system.lockstep.together():
            if self.soft is not None:
                local = self.soft.local_model(self.system.graph, self.system.models)
                local.set_agent_parameters(agent_parameters)
            yield

    def play(self, graph: Graph, tasks: Sequence[tuple[EpisodeResult, Task]], *, epoch: int) -> list[EpisodeResult]:
        """Runs and judges tasks, in `together`; what samples does so anew in every epoch."""
        options = replace(self.run, seed=seed_of("run", self.run.seed, self.seed, epoch))
        return play(graph, self.system.models, tasks, loss=self.judge, options=options)

    def blame(self, played: Sequence[EpisodeResult]) -> tuple[list[EpisodeResult], list[AttributedError]]:
        """Who is to blame for the errors, in `together`; a run that cannot be attributed has failed."""
        wrong = [each for each in played if each.loss is not None and each.loss.value > 0]
        try:
            found = list(zip(wrong, self._attribute(wrong), strict=True))
        except ConfigError:
            raise
        except FrameworkError:
            found = [(each, self._attribute_alone(each)) for each in wrong]
        failed: dict[tuple[int, int], EpisodeResult] = {}
        self.attributed = {}
        blamed: list[AttributedError] = []
        for each, attribution in found:
            assert each.trace is not None
            assert each.loss is not None
            if isinstance(attribution, FrameworkError):
                failed[each.place] = replace(each, loss=None, failure=str(attribution))
                continue
            self.attributed[each.place] = attribution
            example = example_of(each.trace, each.loss, attribution) if self.examples else ""
            blamed.append(
                AttributedError(place=each.place, loss=each.loss.value, credits=attribution.agents, example=example)
            )
        return [failed.get(each.place, each) for each in played], blamed

    def _attribute_alone(self, played: EpisodeResult) -> Attribution | FrameworkError:
        try:
            return self._attribute([played])[0]
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

    def flow(
        self, played: Sequence[EpisodeResult], agent_parameters: AgentParameters, *, num_episodes: int
    ) -> tuple[list[EpisodeResult], Flow]:
        """The gradients of a batch of so many episodes, in `together`; a task whose target is missing has failed."""
        zeros = tuple(map(torch.zeros_like, agent_parameters.values))
        nothing = Flow(value=torch.zeros(()), flowing=0.0, num_traces=0, gradients=zeros)
        if self.soft is None or self.target is None:
            return list(played), nothing
        marked: list[EpisodeResult] = []
        trained: list[tuple[Trace, Target, float]] = []
        for each in played:
            if each.failure is None and each.trace is not None:
                try:
                    target = self.target(each.trace.task)
                except ConfigError:
                    raise
                except FrameworkError as error:
                    marked.append(replace(each, loss=None, failure=str(error)))
                    continue
                if trained_outputs(self.soft.model, each.trace, target):
                    trained.append((each.trace, target, each.weight / num_episodes))
            marked.append(each)
        if not trained:
            return marked, nothing
        flow = flow_gradients(
            self.soft.local_model(self.system.graph, self.system.models),
            self.soft.model,
            [trace for trace, _, _ in trained],
            [target for _, target, _ in trained],
            [weight for _, _, weight in trained],
            agent_parameters=agent_parameters,
            at_once=self.run.tasks_at_once,
        )
        return marked, flow

    def exchange(
        self, played: Sequence[EpisodeResult], blamed: Sequence[AttributedError] = (), flow: Flow | None = None
    ) -> list[RankResult]:
        """The shares of all processes."""
        now = time.monotonic()
        share = RankResult(
            # Traces are large, and nobody else reads them.
            played=[replace(each, trace=None) for each in played],
            blamed=list(blamed),
            value=0.0 if flow is None else float(flow.value),
            flowing=0.0 if flow is None else flow.flowing,
            num_traces=0 if flow is None else flow.num_traces,
            spent=self.meter.take(),
            seconds=now - self._clock,
        )
        self._clock = now
        return all_gather_object(share)


def played_by_all(shares: Sequence[RankResult]) -> list[EpisodeResult]:
    """The tasks of all processes, in the order of the samples."""
    return sorted((played for share in shares for played in share.played), key=lambda each: each.place)


def blamed_by_all(shares: Sequence[RankResult]) -> list[AttributedError]:
    """The errors of all processes, in the order of the samples."""
    return sorted((blamed for share in shares for blamed in share.blamed), key=lambda each: each.place)
