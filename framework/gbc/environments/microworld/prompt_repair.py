"""Faults of the micro world that cost success, with prompts to repair them (ours)."""

import random

from framework.core.errors import ConfigError
from framework.gbc.environments.microworld.episodes import Remembered
from framework.gbc.environments.microworld.faults import KINDS, plant
from framework.gbc.environments.microworld.system import MODEL, draw_system, make_graph
from framework.gbc.environments.microworld.tasks import answer_loss, make_tasks
from framework.gbc.environments.microworld.world import candidate_prompts
from framework.gbc.environments.prompt_repair import LEAST_LOST, Damage, success_of
from framework.gbc.language_models.local import LocalModel

_MOST_TRIES = 1000


def draw_damages(
    model: LocalModel, num_damages: int, *, num_tasks: int = 8, num_wrong: int = 4, seed: int = 0
) -> list[Damage]:
    """Faults in prompts, the kinds in turns.

    Args:
        model: solves the tasks of healthy systems.
        num_damages: 1 or more.
        num_tasks: of each damage.
        num_wrong: candidates of each agent besides its healthy prompt.
        seed: of systems, faults, tasks and candidates.

    Raises:
        ConfigError: fewer than one, or a model that solves nothing.
    """
    if num_damages < 1 or num_tasks < 1:
        raise ConfigError(f"{num_damages} damages, {num_tasks} tasks", hint="use 1 or more of both")
    kinds = [kind for kind in KINDS if kind != "tool"]
    rng, models = random.Random(f"damages/{seed}"), {MODEL: Remembered(model)}
    found: list[Damage] = []
    for _ in range(_MOST_TRIES * num_damages):
        if len(found) == num_damages:
            return found
        system = draw_system(rng.getrandbits(48))
        fault = plant(system, kinds[len(found) % len(kinds)], seed=rng.getrandbits(48))
        tasks = make_tasks(system, 2 * num_tasks, seed=rng.getrandbits(48))
        train, held_out = tuple(tasks[:num_tasks]), tuple(tasks[num_tasks:])
        healthy = success_of(make_graph(system), models, held_out, answer_loss)
        faulty = success_of(fault.graph, models, held_out, answer_loss)
        if healthy - faulty >= LEAST_LOST:
            damage = Damage(
                graph=fault.graph,
                kind=fault.kind,
                culprit=fault.culprit,
                candidates=candidate_prompts(system, num_wrong=num_wrong, seed=seed + len(found)),
                train=train,
                held_out=held_out,
                healthy=healthy,
                faulty=faulty,
            )
            found.append(damage)
    raise ConfigError("the model does not solve the tasks of healthy systems", hint="train it for longer")
