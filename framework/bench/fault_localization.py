"""`framework bench blame`: which agent is named for planted faults, by every variant of GBC and by its baselines.

In the micro world the variant is chosen on one set of episodes and judged on another; with a real language model
(`real_fault_localization.py`), on one set of systems and on another.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.table import Table
from rich.text import Text

from framework.bench.real_fault_localization import measure_real_world, refuse_without_real_world, show, weights_of
from framework.bench.record import check_record, machine_of, write_record
from framework.core.console import results, working
from framework.core.errors import ConfigError
from framework.core.serialization import to_json
from framework.gbc.attribution.options import CounterfactualEditOptions, Scalar
from framework.gbc.environments.microworld.episodes import Episode, draw_episodes
from framework.gbc.environments.microworld.fault_localization import (
    SCALARS,
    MethodScore,
    score_edits,
    score_gradients,
    score_leave_one_out,
    score_random,
)
from framework.gbc.environments.microworld.world import KINDS, load_model
from framework.gbc.environments.realworld.systems import load_systems
from framework.gbc.language_models.local import LocalModel

EDITS = {
    "edits": CounterfactualEditOptions(),
    "edits, keep 1": CounterfactualEditOptions(keep=1.0),
    "edits, keep 0": CounterfactualEditOptions(keep=0.0),
}
"""The default, and its weight of what an edit breaks at other values."""


def bench_fault_localization(
    out: Path | None = None,
    *,
    num_episodes: int = 300,
    num_choosing: int = 150,
    seed: int = 1,
    scalars: tuple[Scalar, ...] = SCALARS,
    model: Path | None = None,
    world: Literal["micro", "real"] = "micro",
    folder: Path | None = None,
    systems: tuple[str, ...] = (),
    candidates: tuple[str, ...] = (),
    most_failures: int = 6,
    multiwoz: Path | None = None,
) -> dict[str, object]:
    """Measures how often the culprit of a planted fault is named, and the model calls that it takes.

    With `--world real`, in systems of a model that nobody trained for it; the same command goes on where it ended.

    Args:
        out: JSON file for the numbers.
        num_episodes: that the methods are judged on.
        num_choosing: that the best variant is chosen on, others than these.
        seed: of the episodes to judge on; those to choose on are of the next seed.
        scalars: what is differentiated.
        model: folder of the language model; by default the one that is shipped for the micro world.
        world: `micro`, or `real` with a model such as SmolLM2-135M-Instruct; the options below are of the real one, and
            those from `num_episodes` to `scalars` of the micro one.
        folder: for episodes and verdicts; the scores are of all that it holds.
        systems: names of those to work on; all by default.
        candidates: names of those to ask; all by default.
        most_failures: episodes of each fault.
        multiwoz: folder of the few-shot files of IC-DST; with it there is a system of MultiWOZ too.

    Raises:
        ConfigError: a number out of range, or an option of the other world.
    """
    check_record(out)
    if world == "real":
        return _bench_real(out, model, folder, systems, candidates, most_failures, multiwoz)
    refuse_without_real_world(folder=folder, systems=systems, candidates=candidates, multiwoz=multiwoz)
    _check_counts(num_episodes=num_episodes, num_choosing=num_choosing)
    started = time.perf_counter()
    language_model = load_model(None if model is None else str(model))
    with working("faults to choose by, then those to judge", bar=False):
        choosing = measure(language_model, draw_episodes(language_model, num_choosing, seed=seed + 1), scalars)
        judging = measure(language_model, draw_episodes(language_model, num_episodes, seed=seed), scalars)
    chosen = max((score for score in choosing if "/" in score.method), key=lambda score: score.top1).method
    record = {
        "machine": machine_of(),
        **{"num_episodes": num_episodes, "num_choosing": num_choosing, "seed": seed},
        "chosen": chosen,
        "seconds": time.perf_counter() - started,
        "choosing": [to_json(score) for score in choosing],
        "judging": [to_json(score) for score in judging],
    }
    _show(choosing, judging, chosen, num_episodes)
    write_record(out, record)
    return record


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < len(KINDS):
            raise ConfigError(f"{name} is {value}", hint=f"give at least {len(KINDS)}, one of each kind of fault")


def _bench_real(
    out: Path | None,
    model: Path | None,
    folder: Path | None,
    systems: tuple[str, ...],
    candidates: tuple[str, ...],
    most_failures: int,
    multiwoz: Path | None,
) -> dict[str, object]:
    if model is None or folder is None or most_failures < 1:
        problem = f"model {model}, folder {folder}, most_failures {most_failures}"
        raise ConfigError(problem, hint="give --model and --folder, and 1 failure or more")
    started = time.perf_counter()
    asked = measure_real_world(
        model, folder, systems=systems, candidates=candidates, most_failures=most_failures, multiwoz=multiwoz
    )
    record: dict[str, object] = {
        "machine": machine_of(),
        "model": str(model.name),
        "seconds": time.perf_counter() - started,
        "weights": weights_of(folder, load_systems(multiwoz)),
        "scores": to_json(asked),
    }
    show(asked)
    write_record(out, record)
    return record


def measure(model: LocalModel, episodes: list[Episode], scalars: Sequence[Scalar]) -> list[MethodScore]:
    """Every method on the same episodes.

    Args:
        model: of the agents.
        episodes: runs with a planted fault.
        scalars: what is differentiated.
    """
    return [
        score_random(episodes),
        score_leave_one_out(model, episodes),
        *score_gradients(model, episodes, scalars=("finegrained",), attention=True),
        *score_gradients(model, episodes, scalars=scalars),
        *score_edits(model, episodes, edits=EDITS),
    ]


def _show(choosing: list[MethodScore], judging: list[MethodScore], chosen: str, num_episodes: int) -> None:
    table = Table(title=f"share of {num_episodes} planted faults whose culprit is named first; chosen: {chosen}")
    kinds = list(judging[0].by_kind)
    costs = ("answers", "passes", "tokens", "seconds")
    for heading in ("method", "top-1", "to choose", *kinds, *(f"{name} each" for name in costs)):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    before = {score.method: score.top1 for score in choosing}
    for score in sorted(judging, key=lambda score: -score.top1):
        shares = (score.top1, before[score.method], *(score.by_kind[kind] for kind in kinds))
        each = (f"{getattr(score.cost, name) / num_episodes:,.2f}" for name in costs)
        name = Text(score.method, style="bold" if score.method == chosen else "")
        table.add_row(name, *(f"{share:.3f}" for share in shares), *each)
    # Narrower, nothing could be read.
    results(min_width=150).print(table)
