"""A batch of episodes through the graph: tasks, runs, losses; what fails is marked and goes no further."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from framework.core.errors import ConfigError, DataError, FrameworkError
from framework.data.shards.reader import ShardSet
from framework.gbc.execution.runner import RunOptions, Task, run_graph
from framework.gbc.graph.spec import Graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import Loss, VerbalLoss
from framework.gbc.language_models.interface import LanguageModel
from framework.gbc.language_models.server import ServerError

TasksOf = Callable[[object], Sequence[Task]]
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


def one_task(episode: object) -> Sequence[Task]:
    """The episode is the task.

    Raises:
        DataError: not a JSON object.
    """
    if not isinstance(episode, Mapping):
        problem = f"an episode is {type(episode).__name__}, not a task"
        raise DataError(problem, hint="give JSON objects, or set model.tasks to what makes tasks of episodes")
    return [cast("Task", episode)]


def split_episodes(
    samples: Sequence[int], episodes: Sequence[object], tasks_of: TasksOf
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
            # A user's function may give anything.
            if not tasks or not all(isinstance(task, Mapping) for task in cast("list[object]", tasks)):
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
            result = EpisodeResult(sample=sample, number=number, weight=1 / len(tasks), id=id)
            found.append((result, {**task, "id": id}))
    return found


def read_spread(shards: ShardSet, most: int) -> tuple[list[int], list[object]]:
    """Episodes spread evenly over a shard set: their numbers, and their parsed JSON.

    Args:
        shards: of episodes.
        most: upper bound of their number.
    """
    count = min(most, len(shards))
    numbers = [row * len(shards) // count for row in range(count)]
    return numbers, [json.loads(shards.read(number)[0]) for number in numbers]


def run_episodes(
    graph: Graph,
    models: Mapping[str, LanguageModel],
    tasks: Sequence[tuple[EpisodeResult, Task]],
    *,
    loss: Loss,
    options: RunOptions,
    recited: Callable[[Task], Mapping[str, str]] | None = None,
) -> list[EpisodeResult]:
    """Runs tasks and takes their losses; those that have failed already stay as they are.

    Args:
        graph: the system.
        models: by the names that the agents use.
        tasks: as `split_episodes` gives them.
        loss: of a run.
        options: how the graph runs.
        recited: of a task, by agent what it is taken to have said.

    Raises:
        ConfigError: a graph or a model that cannot be used, whatever the task.
    """
    ready = [(result, task) for result, task in tasks if result.failure is None]
    texts = None if recited is None else [recited(task) for _, task in ready]
    traces = _run(graph, models, [task for _, task in ready], options, texts)
    done = {
        result.place: _with_loss(result, trace, graph, loss) for (result, _), trace in zip(ready, traces, strict=True)
    }
    return [done.get(result.place, result) for result, _ in tasks]


def _run(
    graph: Graph,
    models: Mapping[str, LanguageModel],
    tasks: Sequence[Task],
    options: RunOptions,
    recited: Sequence[Mapping[str, str]] | None,
) -> Iterator[Trace]:
    """The traces of all tasks; those that a server's failure keeps from running have failed with its reason.

    Args:
        graph: the system.
        models: by the names that the agents use.
        tasks: what it runs on.
        options: how the graph runs.
        recited: for each task, by agent what it is taken to have said.
    """
    count = 0
    try:
        for trace in run_graph(graph, models, tasks, options=options, recited=recited):
            count += 1
            yield trace
    except ServerError as error:
        for task in tasks[count:]:
            yield Trace(id=str(task["id"]), task=dict(task), steps=(), skipped=(), outputs=(), failure=str(error))


def _with_loss(result: EpisodeResult, trace: Trace, graph: Graph, loss: Loss) -> EpisodeResult:
    failure = trace.failure or _unended_loop(trace, graph)
    if failure is None:
        try:
            return replace(result, trace=trace, loss=loss(trace))
        except DataError as error:
            failure = str(error)
    return replace(result, trace=trace, failure=failure)


def _unended_loop(trace: Trace, graph: Graph) -> str | None:
    """The loop that its condition has not ended within its bound, in words."""
    ran = {step.name: step for step in trace.steps}
    for loop in graph.loops:
        last = ran.get(f"{loop.until.source}@{loop.times}") if loop.until is not None else None
        if loop.until is not None and last is not None and not loop.until.holds(last.output):
            return f"the loop over {', '.join(loop.body)} did not end within {loop.times} rounds"
    return None


def mean_loss(results: Sequence[EpisodeResult]) -> float:
    """Mean over the tasks that did not fail; 0 where all have."""
    values = [each.loss.value for each in results if each.loss is not None]
    return sum(values) / max(1, len(values))


def weighted_loss(results: Sequence[EpisodeResult], *, failed_loss: float) -> float:
    """Mean over the episodes, a task that failed counted as `failed_loss`."""
    total = sum(each.weight * (failed_loss if each.loss is None else each.loss.value) for each in results)
    return total / sum(each.weight for each in results)


def success_share(results: Sequence[EpisodeResult]) -> float:
    """Share of all tasks without failure and error, in [0, 1]."""
    return sum(each.succeeded for each in results) / max(1, len(results))


def failed_share(results: Sequence[EpisodeResult]) -> float:
    """Share of all tasks that failed, in [0, 1]."""
    return sum(each.failure is not None for each in results) / max(1, len(results))
