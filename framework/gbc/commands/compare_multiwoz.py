"""`framework agents compare-multiwoz`: a team of agents and one agent alone on MultiWOZ, before and after training."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from framework.core.console import console, results
from framework.core.errors import ConfigError
from framework.core.io import atomic_write, locked_file
from framework.core.serialization import JsonDict


def compare_multiwoz(
    folder: str,
    *,
    models: str,
    release: str,
    train: str,
    dev: str | None = None,
    recipe: str = "recipes/gbc/multiwoz_small_train.yaml",
    team: str = "recipes/gbc/graphs/multiwoz_small.yaml",
    alone: str = "recipes/gbc/graphs/multiwoz_alone.yaml",
    systems: tuple[str, ...] = ("team", "alone"),
    num_turns: int = 384,
    num_dialogues: int = 16,
    num_dev: int = 16,
    at_once: int = 8,
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
        recipe: of the training.
        team: YAML file of the graph of several agents.
        alone: YAML file of the graph of one.
        systems: those that this call works on: team, alone.
        num_turns: turns to train on.
        num_dialogues: held-out dialogues of the release.
        num_dev: dialogues of `dev`.
        at_once: dialogues whose turns share batches; so many are lost by a kill.
        seed: of turns, adapters and soft prompts.
        minutes: after which it stops, to go on another time.
        fit: further options of `framework fit`, such as `--trainer.max_steps=100`; the same for both.
    """
    # Imported here: the other commands do without.
    from framework.gbc.environments.multiwoz.state_tracking.comparison import Comparison, System, load_data, measure
    from framework.gbc.environments.multiwoz.state_tracking.comparison import train as train_system

    unknown = [name for name in systems if name not in ("team", "alone")]
    if unknown or not systems:
        raise ConfigError(f"systems {unknown[0] if unknown else '[]'!r}", hint="use team, alone or both")
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    data = load_data(release, train, dev, num_dialogues=num_dialogues, num_dev=num_dev)
    comparison = Comparison(
        folder=Path(folder),
        models=models,
        release=release,
        recipe=recipe,
        graphs={"team": team, "alone": alone},
        num_turns=num_turns,
        at_once=at_once,
        seed=seed,
        fit=tuple(fit),
        deadline=deadline,
    )
    for name in systems:
        path = comparison.folder / name
        path.mkdir(parents=True, exist_ok=True)
        with locked_file(path / "lock"):
            system = System.prepare(comparison, name, data)
            measure(comparison, system, data, "before")
            train_system(comparison, system)
            measure(comparison, system, data, "after")
        _show(comparison.folder, comparison.table(data))
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
