"""What optimizers win back of the success that planted faults have cost, and in how many evaluations (ours)."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from framework.core.errors import ConfigError
from framework.gbc.attribution.options import AttributionOptions
from framework.gbc.environments.microworld.episodes import Remembered
from framework.gbc.environments.microworld.faults import KINDS, Fault, plant
from framework.gbc.environments.microworld.system import MODEL, System, draw_system, make_graph
from framework.gbc.environments.microworld.tasks import answer_loss, make_tasks
from framework.gbc.environments.microworld.world import candidate_prompts
from framework.gbc.execution.runner import RunOptions, Task, run_graph
from framework.gbc.graph.spec import Graph
from framework.gbc.language_models.local import LocalModel
from framework.gbc.prompt_search.candidates import Candidates
from framework.gbc.prompt_search.search import OptimizeOptions, Proposer, optimize

RUN = RunOptions(on_empty="keep")
EVENLY = "spread evenly"
WON_BACK = 0.95
"""Share of what was lost at which a system counts as repaired."""
_LEAST_LOST = 0.25
_MOST_TRIES = 1000


@dataclass(frozen=True, kw_only=True)
class Damage:
    """A faulty system and tasks on which the fault costs a quarter of the success or more.

    Attributes:
        system: the healthy one.
        fault: what was planted, in an agent's prompt.
        train, held_out: tasks.
        healthy, faulty: success on the held-out tasks, the share without any error.
    """

    system: System
    fault: Fault
    train: tuple[Task, ...]
    held_out: tuple[Task, ...]
    healthy: float
    faulty: float


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


def success_of(graph: Graph, model: LocalModel, tasks: Sequence[Task]) -> float:
    """Share of the tasks that are solved without any error.

    Args:
        graph: the system.
        model: of all its agents.
        tasks: with their expected slots.
    """
    traces = run_graph(graph, {MODEL: model}, tasks, options=RUN)
    return sum(trace.failure is None and answer_loss(trace).value == 0 for trace in traces) / len(tasks)


def draw_damages(model: LocalModel, num_damages: int, *, num_tasks: int = 8, seed: int = 0) -> list[Damage]:
    """Faults in prompts, the kinds in turns.

    Args:
        model: solves the tasks of healthy systems.
        num_damages: 1 or more.
        num_tasks: of each damage.
        seed: of systems, faults and tasks.

    Raises:
        ConfigError: fewer than one, or a model that solves nothing.
    """
    if num_damages < 1 or num_tasks < 1:
        raise ConfigError(f"{num_damages} damages, {num_tasks} tasks", hint="use 1 or more of both")
    kinds = [kind for kind in KINDS if kind != "tool"]
    rng, remembered = random.Random(f"damages/{seed}"), Remembered(model)
    found: list[Damage] = []
    for _ in range(_MOST_TRIES * num_damages):
        if len(found) == num_damages:
            return found
        system = draw_system(rng.getrandbits(48))
        fault = plant(system, kinds[len(found) % len(kinds)], seed=rng.getrandbits(48))
        tasks = make_tasks(system, 2 * num_tasks, seed=rng.getrandbits(48))
        train, held_out = tuple(tasks[:num_tasks]), tuple(tasks[num_tasks:])
        healthy = success_of(make_graph(system), remembered, held_out)
        faulty = success_of(fault.graph, remembered, held_out)
        if healthy - faulty >= _LEAST_LOST:
            found.append(
                Damage(system=system, fault=fault, train=train, held_out=held_out, healthy=healthy, faulty=faulty)
            )
    raise ConfigError("the model does not solve the tasks of healthy systems", hint="train it for longer")


def repair(
    model: LocalModel,
    damages: Sequence[Damage],
    *,
    attributions: Mapping[str, AttributionOptions],
    num_wrong: int = 4,
    seed: int = 0,
) -> Iterator[Repair]:
    """Repairs every damage by `candidates`, led by the blame of each attribution and spread evenly.

    Args:
        model: of the agents.
        damages: to be repaired.
        attributions: how blame is found, by name.
        num_wrong: candidates of each agent besides its healthy prompt.
        seed: of the candidates and of the optimizers.
    """
    for index, damage in enumerate(damages):
        candidates = candidate_prompts(damage.system, num_wrong=num_wrong, seed=seed + index)
        options = OptimizeOptions(
            steps=sum(map(len, candidates.values())), batch_size=len(damage.train), seed=seed + index, run=RUN
        )
        for name, attribution in attributions.items():
            led = replace(options, attribution=attribution)
            yield _repair(name, model, damage, Candidates(candidates, by="own"), led)
        yield _repair(EVENLY, model, damage, Candidates(candidates, spread="even"), options)


def _repair(name: str, model: LocalModel, damage: Damage, proposer: Proposer, options: OptimizeOptions) -> Repair:
    models = {MODEL: Remembered(model)}
    graph = damage.fault.graph
    goal = damage.faulty + WON_BACK * (damage.healthy - damage.faulty)
    state, success = None, damage.faulty
    # A step at a time: whether it is repaired is judged by success, which the optimizer does not see.
    for step in range(options.steps):
        state = optimize(
            graph,
            models,
            answer_loss,
            proposer,
            train=damage.train,
            held_out=damage.held_out,
            options=replace(options, steps=step + 1),
            state=state,
        )
        if state.trials and state.trials[-1].kept:
            success = success_of(graph.with_prompts(state.prompts), models[MODEL], damage.held_out)
        if success >= goal or state.finished:
            break
    assert state is not None
    return Repair(
        optimizer=name,
        kind=damage.fault.kind,
        culprit=damage.fault.culprit,
        won_back=(success - damage.faulty) / (damage.healthy - damage.faulty),
        evaluations=state.evaluations - 1,
        runs=state.runs,
        named_first=bool(state.trials) and damage.fault.culprit in state.trials[0].changes,
    )
