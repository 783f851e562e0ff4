"""A batch of episodes through the graph: tasks, runs, losses; what fails is marked and goes no further."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from framework.core.errors import ConfigError, DataError, FrameworkError
from framework.gbc.execution.runner import LanguageModel, RunOptions, Task, run_graph
from framework.gbc.graph.spec import Graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import Loss, VerbalLoss
from framework.gbc.language_models.server import ServerError

TasksOf = Callable[[Any], Sequence[Task]]
"""The tasks of an episode, at least one."""


@dataclass(frozen=True, kw_only=True)
class EpisodeResult:
    """A task that was run.

    Attributes:
        sample: number of its episode in the shard set.
        number: of the task in its episode, from 0.
        weight: 1 / tasks of the episode: an episode weighs as much as another, whatever its length.
        id: of the task.
        trace: of the run; None where the episode gave no tasks.
        loss: None where it failed.
        failure: why it failed.
    """

    sample: int
    number: int
    weight: float
    id: str
    trace: Trace | None = None
    loss: VerbalLoss | None = None
    failure: str | None = None

    @property
    def place(self) -> tuple[int, int]:
        """Its order among those of all processes."""
        return self.sample, self.number

    @property
    def succeeded(self) -> bool:
        """No failure, and nothing wrong."""
        return self.loss is not None and self.loss.value == 0


def one_task(episode: Any) -> Sequence[Task]:
    """The episode is the task.

    Raises:
        DataError: no JSON object.
    """
    if not isinstance(episode, Mapping):
        problem = f"an episode is {type(episode).__name__}, no task"
        raise DataError(problem, hint="give JSON objects, or set model.tasks to what makes tasks of episodes")
    return [episode]


def split_episodes(
    samples: Sequence[int], episodes: Sequence[Any], tasks_of: TasksOf
) -> list[tuple[EpisodeResult, Task]]:
    """The tasks of episodes, each beside what is known of it; an episode that cannot be read has failed.

    Args:
        samples: the episodes' numbers in their shard set.
        episodes: parsed JSON.
        tasks_of: what makes tasks of an episode.
    """
    found: list[tuple[EpisodeResult, Task]] = []
    for sample, episode in zip(samples, episodes, strict=True):
        try:
            tasks = list(tasks_of(episode))
            if not tasks or not all(isinstance(task, Mapping) for task in tasks):
                raise DataError(f"episode {sample} has no tasks", hint="leave it out")
        except ConfigError:
            raise
        except Exception as error:
            known = isinstance(error, FrameworkError)
            failure = str(error) if known else f"its tasks cannot be read ({type(error).__name__}: {error})"
            found.append((EpisodeResult(sample=sample, number=0, weight=1.0, id=str(sample), failure=failure), {}))
            continue
        for number, task in enumerate(tasks):
            id = str(task.get("id", f"{sample}/{number}" if len(tasks) > 1 else sample))
            played = EpisodeResult(sample=sample, number=number, weight=1 / len(tasks), id=id)
            found.append((played, {**task, "id": id}))
    return found


def play(
    graph: Graph,
    models: Mapping[str, LanguageModel],
    tasks: Sequence[tuple[EpisodeResult, Task]],
    *,
    loss: Loss,
    options: RunOptions,
) -> list[EpisodeResult]:
    """Runs tasks and judges them; those that have failed already stay as they are.

    Args:
        graph: the system.
        models: by the names that the agents use.
        tasks: as `split_episodes` gives them.
        loss: of a run.
        options: how the graph runs.

    Raises:
        ConfigError: a graph or a model that cannot be used, whatever the task.
    """
    ready = [(played, task) for played, task in tasks if played.failure is None]
    traces = _run(graph, models, [task for _, task in ready], options)
    done = {played.place: _judged(played, trace, graph, loss) for (played, _), trace in zip(ready, traces, strict=True)}
    return [done.get(played.place, played) for played, _ in tasks]


def _run(
    graph: Graph, models: Mapping[str, LanguageModel], tasks: Sequence[Task], options: RunOptions
) -> Iterator[Trace]:
    """The traces of all tasks; those that a server's failure keeps from running have failed with its reason."""
    count = 0
    try:
        for trace in run_graph(graph, models, tasks, options=options):
            count += 1
            yield trace
    except ServerError as error:
        for task in tasks[count:]:
            yield Trace(id=str(task["id"]), task=dict(task), steps=(), skipped=(), outputs=(), failure=str(error))


def _judged(played: EpisodeResult, trace: Trace, graph: Graph, loss: Loss) -> EpisodeResult:
    failure = trace.failure or _endless(trace, graph)
    if failure is None:
        try:
            return replace(played, trace=trace, loss=loss(trace))
        except DataError as error:
            failure = str(error)
    return replace(played, trace=trace, failure=failure)


def _endless(trace: Trace, graph: Graph) -> str | None:
    """The loop that its condition has not ended within its bound, in words."""
    ran = {step.name: step for step in trace.steps}
    for loop in graph.loops:
        last = ran.get(f"{loop.until.source}@{loop.times}") if loop.until is not None else None
        if loop.until is not None and last is not None and not loop.until.holds(last.output):
            return f"the loop over {', '.join(loop.body)} did not end within {loop.times} rounds"
    return None


def mean_loss(played: Sequence[EpisodeResult]) -> float:
    """Mean over the tasks that did not fail; 0 where all have."""
    values = [each.loss.value for each in played if each.loss is not None]
    return sum(values) / max(1, len(values))


def success_share(played: Sequence[EpisodeResult]) -> float:
    """Of all tasks, those without failure and error."""
    return sum(each.succeeded for each in played) / max(1, len(played))


def failed_share(played: Sequence[EpisodeResult]) -> float:
    """Of all tasks."""
    return sum(each.failure is not None for each in played) / max(1, len(played))
