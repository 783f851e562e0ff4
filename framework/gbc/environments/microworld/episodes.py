"""Episodes with a known culprit: a task that a healthy system solves and the same system with a fault does not."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from framework.core.errors import ConfigError, DataError
from framework.gbc.environments.microworld.faults import KINDS, Fault, plant
from framework.gbc.environments.microworld.rules import RuleModel
from framework.gbc.environments.microworld.system import MODEL, System, draw_system, make_graph
from framework.gbc.environments.microworld.tasks import answer_loss, make_tasks
from framework.gbc.execution.runner import RunOptions, Task, run_graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import VerbalLoss
from framework.gbc.language_models.interface import Reply, Request
from framework.gbc.language_models.local import LocalModel

_MOST_TRIES = 1000


@dataclass(frozen=True, kw_only=True)
class Episode:
    """A run that failed because of a fault.

    Attributes:
        system: the healthy one.
        fault: what was planted, and where.
        task: that it fails at.
        trace: of the faulty system, by the language model.
        loss: of the trace; more than 0.
    """

    system: System
    fault: Fault
    task: Task
    trace: Trace
    loss: VerbalLoss


class Remembered(LocalModel):
    """A local model that remembers its answers, so that they can be asked for ahead in large batches; greedy ones.

    Raises:
        ConfigError: a model that samples.
    """

    def __init__(self, model: LocalModel) -> None:
        if model.config.temperature:
            raise ConfigError(f"temperature {model.config.temperature}", hint="use 0: only then answers repeat")
        super().__init__(model.model, model.tokenizer, model.config)
        # By the whole request: a reply names the steps whose messages it read.
        self.known: dict[Request, Reply | DataError] = {}

    def reply(self, requests: Sequence[Request]) -> list[Reply | DataError]:
        """The answers to requests, in their order; the model is asked for those that are new."""
        requests = [replace(request, seed=0) for request in requests]
        new = list(dict.fromkeys(request for request in requests if request not in self.known))
        self.known.update(zip(new, super().reply(new), strict=True))
        return [self.known[request] for request in requests]


class Recorder:
    """A model that follows the rules and remembers what it was asked: what the trained one will be asked."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def reply(self, requests: Sequence[Request]) -> list[Reply]:
        """The answers to requests, by the rules."""
        self.requests += requests
        return RuleModel().reply(requests)


def draw_episodes(
    model: LocalModel, num_episodes: int, *, seed: int = 0, kinds: Sequence[str] = tuple(KINDS)
) -> list[Episode]:
    """Episodes, the kinds of faults in turns.

    The model solves the task without the fault, and with it every agent says what the rules say: the fault is the only
    cause.

    Args:
        model: solves the tasks of healthy systems.
        num_episodes: 1 or more.
        seed: of systems, faults and tasks.
        kinds: of faults, taken in turns.

    Raises:
        ConfigError: fewer than one episode, or a model that fails at almost everything.
    """
    if num_episodes < 1 or not kinds:
        raise ConfigError(f"{num_episodes} episodes of {len(kinds)} kinds", hint="use 1 or more of both")
    rng = random.Random(f"episodes/{seed}")
    drawn = [_draw(rng, kinds[index % len(kinds)]) for index in range(num_episodes)]
    episodes: list[Episode | None] = [None] * num_episodes
    remembered = Remembered(model)
    for _ in range(_MOST_TRIES):
        open_ = [index for index, episode in enumerate(episodes) if episode is None]
        if not open_:
            break
        recorder = Recorder()
        for index in open_:
            system, fault, task = drawn[index]
            for graph in (make_graph(system), fault.graph):
                list(run_graph(graph, {MODEL: recorder}, [task]))
        remembered.reply(recorder.requests)
        for index in open_:
            episodes[index] = _episode(remembered, *drawn[index])
            if episodes[index] is None:
                drawn[index] = _draw(rng, drawn[index][1].kind)
    found = [episode for episode in episodes if episode is not None]
    if len(found) < num_episodes:
        raise ConfigError("the model does not solve the tasks of healthy systems", hint="train it for longer")
    return found


def _draw(rng: random.Random, kind: str) -> tuple[System, Fault, Task]:
    while True:
        seed = rng.getrandbits(48)
        system = draw_system(seed)
        fault, (task,) = plant(system, kind, seed=seed), make_tasks(system, 1, seed=seed)
        if _loss(next(run_graph(fault.graph, {MODEL: RuleModel()}, [task]))).value > 0:
            return system, fault, task


def _episode(model: Remembered, system: System, fault: Fault, task: Task) -> Episode | None:
    options = RunOptions(on_empty="keep")
    healthy = next(run_graph(make_graph(system), {MODEL: model}, [task], options=options))
    trace = next(run_graph(fault.graph, {MODEL: model}, [task], options=options))
    loss = _loss(trace)
    meant = next(run_graph(fault.graph, {MODEL: RuleModel()}, [task], options=options))
    # What the model does wrong by itself is nobody's fault.
    faithful = [step.output for step in trace.steps] == [step.output for step in meant.steps]
    if _loss(healthy).value > 0 or loss.value == 0 or trace.failure is not None or not faithful:
        return None
    return Episode(system=system, fault=fault, task=task, trace=trace, loss=loss)


def _loss(trace: Trace) -> VerbalLoss:
    return answer_loss(trace) if trace.failure is None else VerbalLoss(value=1.0, text=trace.failure)
