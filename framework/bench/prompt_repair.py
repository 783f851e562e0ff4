"""`framework bench repair`: how fast optimizers win back what planted faults cost, with attribution and without."""

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from rich.table import Table

from framework.bench.record import check_record, machine_of, write_record
from framework.bench.repair_figure import plot_repairs
from framework.core.console import results, working
from framework.core.serialization import to_json
from framework.gbc.attribution.options import AttributionOptions, ConnectionOptions, GradientOptions, Scalar
from framework.gbc.environments.microworld.prompt_repair import Repair, draw_damages, repair
from framework.gbc.environments.microworld.world import load_model


def bench_repair(
    out: Path | None = None,
    *,
    num_faults: int = 40,
    num_tasks: int = 8,
    num_wrong: int = 4,
    seed: int = 1,
    model: Path | None = None,
    attribution: AttributionOptions = AttributionOptions(),
    scalars: tuple[Scalar, ...] = (),
) -> dict[str, Any]:
    """Measures what `candidates` wins back, choosing agents by their credit and evenly, beside who is named first.

    With a file for the numbers, a figure of the same name as SVG shows all ways.

    Every agent has its healthy prompt and wrong ones as candidates. `opro` is left out: the micro world's language
    model cannot write prompts.

    Args:
        out: JSON file for the numbers.
        num_faults: faults that are repaired.
        num_tasks: tasks to attribute, and as many held-out ones.
        num_wrong: wrong candidates of each agent.
        seed: of faults, tasks, candidates and optimizers.
        model: folder of the language model; by default the one that is shipped.
        attribution: how errors are attributed.
        scalars: attribution by the size of these gradients besides, with prompts as inputs, as published.

    Returns:
        The numbers, as in the file.

    Raises:
        ConfigError: a number out of range.
    """
    check_record(out)
    started = time.perf_counter()
    language_model = load_model(None if model is None else str(model))
    with working("drawing faults and repairing them", bar=False):
        damages = draw_damages(language_model, num_faults, num_tasks=num_tasks, seed=seed)
        ways = {"led by blame": attribution, **{scalar: _published(scalar) for scalar in scalars}}
        repairs = list(repair(language_model, damages, attributions=ways, num_wrong=num_wrong, seed=seed))
    record = {
        "machine": machine_of(),
        "num_faults": num_faults,
        "num_tasks": num_tasks,
        "num_wrong": num_wrong,
        "seed": seed,
        "healthy_success": mean(damage.healthy for damage in damages),
        "faulty_success": mean(damage.faulty for damage in damages),
        "seconds": time.perf_counter() - started,
        "repairs": [to_json(each) for each in repairs],
    }
    _show(repairs, record)
    write_record(out, record)
    if out is not None:
        plot_repairs(repairs, out.with_suffix(".svg"))
    return record


def _published(scalar: Scalar) -> AttributionOptions:
    connections = ConnectionOptions(gradients=GradientOptions(scalar=scalar), prompts=True, code=True)
    return AttributionOptions(connections=connections, edits=None)


def _show(repairs: list[Repair], record: Mapping[str, object]) -> None:
    change = f"success {record['healthy_success']:.3f} without, {record['faulty_success']:.3f} with the fault"
    table = Table(title=f"repair of {record['num_faults']} planted faults; {change}")
    for heading in ("candidates", "fault", "top-1", "won back", "evaluations", "runs"):
        table.add_column(heading, justify="left" if heading in ("candidates", "fault") else "right")
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
