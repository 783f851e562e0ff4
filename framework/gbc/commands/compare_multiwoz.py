"""`framework agents compare-multiwoz`: a team of agents and one agent alone on MultiWOZ, before and after training."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from framework.core.console import console, results
from framework.core.errors import ConfigError
from framework.core.io import atomic_write
from framework.core.serialization import JsonDict
from framework.gbc.environments.multiwoz.state_tracking.comparison_inputs import (
    SYSTEMS,
    Setup,
    Sizes,
    SystemName,
    load_data,
)


def compare_multiwoz(
    folder: str,
    *,
    models: str,
    release: str,
    train: str,
    dev: str | None = None,
    systems: tuple[SystemName, ...] = SYSTEMS,
    setup: Setup = Setup(),
    sizes: Sizes = Sizes(),
    seed: int = 0,
    minutes: float | None = None,
    fit: tuple[str, ...] = (),
) -> None:
    """Train a team of agents and one agent alone on MultiWOZ's few-shot split, and measure both before and after.

    Joint goal accuracy, Inform and Success on held-out dialogues, whose states the agents track by themselves. Both
    have as many trained parameters and make as many steps. It goes on where it stopped, and several processes may
    share the systems; a call that its `minutes` end ends with code 75.

    Args:
        folder: for everything: a folder for each system, and table.json.
        models: YAML file of the models, as for `run`.
        release: folder or zip of MultiWOZ 2.1 or 2.4, with goals and databases: its validation dialogues (or, without
            any, all) that are in no few-shot file are held out.
        train: few-shot file of IC-DST (.json), the training part.
        dev: few-shot file of other dialogues, for joint goal accuracy by its labels.
        systems: those that this call works on.
        setup: recipe and graphs.
        sizes: turns to train on, dialogues to measure on.
        seed: of turns, adapters and soft prompts.
        minutes: after which it stops, to go on another time.
        fit: further options of `framework fit`, such as `--trainer.max_steps=100`; the same for both.
    """
    # Imported here: the other commands need no language model.
    from framework.gbc.environments.multiwoz.state_tracking.comparison import Comparison, run_system

    if not systems:
        raise ConfigError("no systems to work on", hint=f"use {' or '.join(SYSTEMS)}, or both")
    if minutes is not None and not minutes > 0:
        # A loop that calls it again while it ends with code 75 would never end.
        raise ConfigError(f"minutes {minutes:g}", hint="use a number above 0, or leave it out")
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    comparison = Comparison(
        folder=Path(folder),
        models=models,
        release=release,
        setup=setup,
        sizes=sizes,
        data=load_data(release, train, dev, sizes=sizes),
        seed=seed,
        fit=tuple(fit),
        deadline=deadline,
    )
    for name in systems:
        run_system(comparison, name)
        _show(comparison.folder, comparison.table())
    console.print(f"{comparison.folder / 'table.json'}: the figures")


def _show(folder: Path, rows: Sequence[JsonDict]) -> None:
    table = Table("system", "", "joint goal accuracy", "dev", "Inform", "Success", "slot F1", "parameters", "steps")
    for row in rows:
        cells = [_share(row.get(name)) for name in ("joint_goal_accuracy", "dev_joint_goal_accuracy")]
        cells += [_share(row.get(name)) for name in ("inform", "success")]
        table.add_row(
            row["system"], row["when"], *cells, f"{100 * row['slot_f1']:.1f}", str(row["parameters"]), str(row["steps"])
        )
    results().print(table)
    with atomic_write(folder / "table.json") as stream:
        stream.write((json.dumps(rows, indent=1) + "\n").encode())


def _share(value: JsonDict | None) -> str:
    if value is None:
        return ""
    return f"{100 * value['share']:.1f} ({100 * value['low']:.1f} to {100 * value['high']:.1f}) of {value['num']}"
