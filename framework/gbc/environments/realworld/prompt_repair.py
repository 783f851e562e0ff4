"""Faults of real systems that cost success, with prompts to repair them (ours)."""

from collections.abc import Sequence

from framework.core.errors import ConfigError
from framework.gbc.environments.prompt_repair import LEAST_LOST, Damage, success_of
from framework.gbc.environments.realworld.systems import MODEL, PlantedFault, RealSystem
from framework.gbc.graph.verbal_loss import slot_loss
from framework.gbc.language_models.interface import LanguageModel


def draw_damages(
    model: LanguageModel, systems: Sequence[RealSystem], num_damages: int, *, num_tasks: int = 8
) -> list[Damage]:
    """Faults in prompts, the systems in turns; the candidates are each agent's prompts, healthy and with its faults.

    Args:
        model: of the agents, greedy.
        systems: whose faults are planted, in their order.
        num_damages: 1 or more.
        num_tasks: to attribute, and as many held-out ones; fewer where a system has fewer.

    Raises:
        ConfigError: fewer than one, or systems with too few faults that cost success.
    """
    if num_damages < 1 or num_tasks < 1:
        raise ConfigError(f"{num_damages} damages, {num_tasks} tasks", hint="use 1 or more of both")
    most = sum(fault.function is None for system in systems for fault in system.faults)
    if most < num_damages:
        raise ConfigError(f"{num_damages} damages, the systems have {most}", hint="use fewer, or more systems")
    found: list[Damage] = []
    for number in range(max((len(system.faults) for system in systems), default=0)):
        for system in systems:
            if len(found) == num_damages:
                return found
            # From the last backwards in every second system, so that few faults are of many kinds.
            faults = system.faults if systems.index(system) % 2 == 0 else system.faults[::-1]
            damage = _damage(model, system, faults[number : number + 1], num_tasks)
            found += [] if damage is None else [damage]
    if len(found) < num_damages:
        raise ConfigError(
            f"{num_damages} damages, those of the systems that cost success are {len(found)}",
            hint="use fewer, or more systems",
        )
    return found


def _damage(model: LanguageModel, system: RealSystem, faults: Sequence[PlantedFault], num_tasks: int) -> Damage | None:
    """The damage of one fault, or none where it is in no prompt or costs too little."""
    if not faults or faults[0].function is not None:
        return None
    (fault,) = faults
    candidates = system.prompts
    # Every second task, so that both halves have all kinds.
    tasks = system.numbered_tasks()
    train, held_out = tuple(tasks[1::2][:num_tasks]), tuple(tasks[::2][:num_tasks])
    graph = fault.planted(system.graph)
    healthy, faulty = (success_of(each, {MODEL: model}, held_out, slot_loss) for each in (system.graph, graph))
    if healthy - faulty < LEAST_LOST:
        return None
    return Damage(
        graph=graph,
        kind=fault.kind,
        culprit=fault.node,
        candidates=candidates,
        train=train,
        held_out=held_out,
        healthy=healthy,
        faulty=faulty,
    )
