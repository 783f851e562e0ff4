"""`framework agents score-multiwoz`: Inform and Success of any system's predictions, as the field reports them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from rich.table import Table

from framework.core.console import console, results
from framework.core.errors import DataError
from framework.core.io import atomic_write, check_outputs


def score_multiwoz(
    predictions: str,
    *,
    release: str,
    split: Literal["test", "validation", "train", "all"] = "test",
    out: str | None = None,
) -> None:
    """Score predictions in the form of MultiWOZ's standardised evaluation: Inform and Success, in all and by domain.

    By dialogue (`sng0073`) a list of turns: `response` with placeholders, and, if the system has them, `state` and
    `active_domains`. Rules and form are those of Nekvinda & Dušek 2021 (Shades of BLEU, Flavours of Success), so that
    figures stand beside published ones.

    Args:
        predictions: the JSON file.
        release: folder or zip of MultiWOZ as its authors publish it, with goals, bookings and databases.
        split: whose dialogues are to be there; those without a prediction are counted and said.
        out: JSON file to write: the figures, and what was judged of each dialogue.
    """
    # Imported here: the other commands do without.
    from framework.gbc.environments.multiwoz.dataset.dialogues import read_dialogue
    from framework.gbc.environments.multiwoz.dataset.release import read_release, read_tables
    from framework.gbc.environments.multiwoz.metrics import InformSuccess
    from framework.gbc.environments.multiwoz.predictions import judge_predictions, plain_id, read_predictions
    from framework.gbc.environments.multiwoz.standard_queries import StandardDatabase
    from framework.gbc.environments.multiwoz.success import Judge

    if out is not None:
        check_outputs(out, inputs=[predictions])
    predicted, known = read_predictions(predictions), read_release(release)
    judge = Judge(StandardDatabase(read_tables(release)), plain=False)
    wanted = {plain_id(id) for id, of in known.splits().items() if split in ("all", of)}
    stray = sorted(id for id in predicted if plain_id(id) not in wanted)
    if stray:
        problem = f"{predictions}: {len(stray)} dialogues are not of the {split} split, the first is {stray[0]}"
        raise DataError(problem, hint="give the release that was predicted, or --split all")
    named = {plain_id(id) for id in predicted}
    dialogues = {
        id: read_dialogue(id, value, split=None) for id, value in known.dialogues.items() if plain_id(id) in named
    }
    found = judge_predictions(predicted, dialogues, judge)
    metric = InformSuccess()
    metric.update(found.values())
    figures = {name: value.item() for name, value in metric.compute().items()}
    results().print(_table(figures))
    turns = [turn for each in predicted.values() for turn in each]
    missing = len(wanted) - len(found)
    states = "predicted" if all(turn.state is not None for turn in turns) else "of the labels"
    domains = "predicted" if all(turn.active_domains is not None for turn in turns) else "estimated from the states"
    console.print(
        f"{len(found)} dialogues{f', {missing} of the {split} split without a prediction' if missing else ''}; "
        f"states {states}, active domains {domains}"
    )
    if out is not None:
        judged = {id: {"inform": each.informed, "told": each.told} for id, each in found.items()}
        with atomic_write(Path(out)) as stream:
            stream.write(json.dumps({"figures": figures, "dialogues": judged}, indent=1).encode() + b"\n")


def _table(figures: Mapping[str, float]) -> Table:
    table = Table("domain", "Inform", "Success", title="percent of the dialogues")
    for name, value in figures.items():
        kind, _, domain = name.partition("/")
        if kind == "inform":
            other = figures["/".join(filter(None, ("success", domain)))]
            table.add_row(domain or "all", f"{100 * value:.1f}", f"{100 * other:.1f}")
    return table
