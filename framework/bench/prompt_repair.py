"""`framework bench repair`: how fast optimizers win back what planted faults cost, with attribution and without."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from rich.table import Table

from framework.bench.real_fault_localization import refuse_without_real_world
from framework.bench.record import check_record, machine_of, write_record
from framework.bench.repair_figure import plot_repairs
from framework.core.console import results, working
from framework.core.errors import ConfigError
from framework.core.serialization import to_json
from framework.gbc.attribution.culprits.shared_prompts import SharedPrompts
from framework.gbc.attribution.options import AttributionOptions, ConnectionOptions, GradientOptions, Scalar
from framework.gbc.environments.microworld import system
from framework.gbc.environments.microworld.episodes import Remembered
from framework.gbc.environments.microworld.prompt_repair import draw_damages
from framework.gbc.environments.microworld.tasks import answer_loss
from framework.gbc.environments.microworld.world import load_model
from framework.gbc.environments.prompt_repair import Damage, Lead, Repair, repair
from framework.gbc.environments.realworld import prompt_repair as realworld
from framework.gbc.environments.realworld.systems import FORMAT, choose_systems, load_systems
from framework.gbc.execution.loading import load_all_models
from framework.gbc.graph.verbal_loss import slot_loss
from framework.gbc.language_models.local import LocalModel, LocalModelConfig

NUM_WRONG = 4
"""Wrong candidates of each agent in the micro world, where nothing else is asked for."""
_LOSSES = {"micro": answer_loss, "real": slot_loss}


def bench_repair(
    out: Path | None = None,
    *,
    num_faults: int = 40,
    num_tasks: int = 8,
    num_wrong: int = NUM_WRONG,
    seed: int = 1,
    model: Path | None = None,
    attribution: AttributionOptions = AttributionOptions(),
    scalars: tuple[Scalar, ...] = (),
    world: Literal["micro", "real"] = "micro",
    systems: tuple[str, ...] = (),
    writers: Path | None = None,
) -> dict[str, Any]:
    """Measures what `candidates` wins back, choosing agents by their credit and evenly, beside who is named first.

    Every agent has its healthy prompt and wrong ones as candidates, in the real world those with its faults; there the
    conclusion of `framework attribute` leads in place of the credit. With `writers` prompts are written by `opro` too.

    Args:
        out: JSON file for the numbers; a figure of the same name as SVG shows all ways.
        num_faults: faults that are repaired.
        num_tasks: tasks to attribute, and as many held-out ones.
        num_wrong: wrong candidates of each agent, in the micro world.
        seed: of faults, tasks, candidates and optimizers; in the real world of optimizers alone.
        model: folder of the language model; by default the micro world's that is shipped.
        attribution: how errors are attributed in the micro world.
        scalars: attribution by the size of these gradients besides, with prompts as inputs, as published.
        world: micro, or real: systems of a model that nobody trained for it.
        systems: names of real ones; all by default.
        writers: YAML file of models, on a server or local; each writes prompts by `opro`, led as `candidates` are.

    Returns:
        The numbers, as in the file.

    Raises:
        ConfigError: a number out of range, no such system, no model for the real world, or the other world's option.
    """
    check_record(out)
    _refuse_without_its_world(world, num_wrong, attribution, systems)
    leads = _leads(world, attribution, scalars, writers)
    started = time.perf_counter()
    with working("drawing faults and repairing them", bar=False):
        if world == "real":
            models, damages = _real_damages(model, systems, num_faults, num_tasks)
        else:
            models, damages = _micro_damages(model, num_faults, num_tasks, num_wrong, seed)
        repairs = list(repair(models, damages, _LOSSES[world], leads=leads, seed=seed))
    record = {
        **{"machine": machine_of(), "world": world, "seed": seed, "seconds": time.perf_counter() - started},
        **{"num_faults": num_faults, "num_tasks": num_tasks, "num_wrong": num_wrong},
        "healthy_success": mean(damage.healthy for damage in damages),
        "faulty_success": mean(damage.faulty for damage in damages),
        "repairs": [to_json(each) for each in repairs],
    }
    _show(repairs, record)
    write_record(out, record)
    if out is not None:
        plot_repairs(repairs, out.with_suffix(".svg"))
    return record


def _refuse_without_its_world(
    world: str, num_wrong: int, attribution: AttributionOptions, systems: tuple[str, ...]
) -> None:
    """Refuses options of one world in the other, where nothing would come of them.

    Args:
        world: micro or real.
        num_wrong: of the micro world.
        attribution: of the micro world.
        systems: of the real one.

    Raises:
        ConfigError: one is given in the other world.
    """
    if world == "micro":
        refuse_without_real_world(systems=systems)
        return
    if num_wrong != NUM_WRONG:
        hint = "leave --num_wrong out: the wrong candidates there are an agent's prompts with each of its faults"
        raise ConfigError(f"num_wrong {num_wrong} in the real world", hint=hint)
    if attribution != AttributionOptions():
        hint = (
            "leave --attribution out: there the evidence leads, as in `framework attribute`; --scalars adds gradients"
        )
        raise ConfigError("attribution in the real world", hint=hint)


def _micro_damages(
    folder: Path | None, num_faults: int, num_tasks: int, num_wrong: int, seed: int
) -> tuple[dict[str, LocalModel], list[Damage]]:
    model = load_model(None if folder is None else str(folder))
    damages = draw_damages(model, num_faults, num_tasks=num_tasks, num_wrong=num_wrong, seed=seed)
    return {system.MODEL: Remembered(model)}, damages


def _real_damages(
    folder: Path | None, names: tuple[str, ...], num_faults: int, num_tasks: int
) -> tuple[dict[str, LocalModel], list[Damage]]:
    systems = choose_systems(names or load_systems())
    if folder is None:
        raise ConfigError("no model for the real world", hint="give --model FOLDER")
    config = LocalModelConfig(path=str(folder), plain_format=FORMAT, batch_size=16)
    shared = SharedPrompts(LocalModel.load(config))
    return {realworld.MODEL: shared}, realworld.draw_damages(shared, systems, num_faults, num_tasks=num_tasks)


def _leads(
    world: str, attribution: AttributionOptions, scalars: tuple[Scalar, ...], writers: Path | None
) -> dict[str, Lead]:
    """What leads to agents, by name: the world's own way, published ones, and prompts that models write.

    Args:
        world: micro or real.
        attribution: of the micro world.
        scalars: of published attributions.
        writers: of prompts, the file of the models.
    """
    known = {} if writers is None else load_all_models(writers)
    ours = Lead(by="diagnosis") if world == "real" else Lead(attribution=attribution)
    name = "led by evidence" if world == "real" else "led by blame"
    return {
        name: ours,
        **{scalar: Lead(attribution=_published(scalar)) for scalar in scalars},
        **{f"opro by {writer}, {name}": replace(ours, writer=model) for writer, model in known.items()},
    }


def _published(scalar: Scalar) -> AttributionOptions:
    connections = ConnectionOptions(gradients=GradientOptions(scalar=scalar), prompts=True, code=True)
    return AttributionOptions(connections=connections, edits=None)


def _show(repairs: list[Repair], record: Mapping[str, object]) -> None:
    change = f"success {record['healthy_success']:.3f} without, {record['faulty_success']:.3f} with the fault"
    table = Table(title=f"repair of {record['num_faults']} planted faults; {change}")
    for heading in ("optimizer", "fault", "top-1", "won back", "evaluations", "runs"):
        table.add_column(heading, justify="left" if heading in ("optimizer", "fault") else "right")
    for name in dict.fromkeys(each.optimizer for each in repairs):
        own = [each for each in repairs if each.optimizer == name]
        for kind in (*dict.fromkeys(each.kind for each in own), "all"):
            of_kind = [each for each in own if kind in (each.kind, "all")]
            values = (
                f"{mean(each.named_first for each in of_kind):.3f}",
                f"{mean(each.won_back for each in of_kind):.3f}",
                f"{mean(each.evaluations for each in of_kind):.1f}",
                f"{mean(each.runs for each in of_kind):.0f}",
            )
            table.add_row(name, kind, *values, end_section=kind == "all")
    results().print(table)
