"""`framework bench blame --world real`: planted faults in systems of a real language model that nobody trained for it.

Methods are chosen on some systems and judged on others. Episodes and verdicts are written as they come: a run that was
cut off goes on, and runs with other systems or candidates may stand side by side.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import mean

from rich.table import Table

from framework.core.console import console, results, tracked, working
from framework.core.errors import ConfigError
from framework.gbc.attribution.culprits.diagnosis import probabilities
from framework.gbc.attribution.culprits.shared_prompts import SharedPrompts
from framework.gbc.environments.planted_faults import Cost, hit
from framework.gbc.environments.realworld.candidates import CANDIDATES, Verdict
from framework.gbc.environments.realworld.episodes import FaultySystem, healthy_share, plant_faults
from framework.gbc.environments.realworld.files import (
    Result,
    append_result,
    read_episodes,
    read_results,
    write_episodes,
)
from framework.gbc.environments.realworld.systems import FORMAT, RealSystem, load_systems
from framework.gbc.environments.realworld.weights import Known, fit_weights
from framework.gbc.language_models.local import LocalModel, LocalModelConfig

_RESAMPLES = 2000
TOGETHER = "evidence, all failures of a fault together"


@dataclass(frozen=True, kw_only=True)
class RealScore:
    """How often a variant names the culprit, over the systems of one part.

    Attributes:
        top1: share of the episodes.
        low, high: 95 % of 2,000 resamplings of systems, and of the faulty versions in each.
        by_system, by_kind: the share in each.
        num_episodes: that it was asked about.
        cost: mean of an episode.
        calibration_error: of the confidence in whoever is named, ten bins; None where blame is not a probability.
    """

    top1: float
    low: float
    high: float
    by_system: dict[str, float]
    by_kind: dict[str, float]
    num_episodes: int
    cost: Cost
    calibration_error: float | None = None


def refuse_without_real_world(**options: object) -> None:
    """Refuses options of the real world in the micro world, where nothing would come of them.

    Raises:
        ConfigError: one that is given, named.
    """
    for name, value in options.items():
        if value:
            raise ConfigError(f"{name} {value} in the micro world", hint=f"give --world real, or leave --{name} out")


def measure_real_world(
    model: Path,
    folder: Path,
    *,
    systems: Sequence[str] = (),
    candidates: Sequence[str] = (),
    most_failures: int = 6,
    multiwoz: Path | None = None,
) -> dict[str, dict[str, RealScore]]:
    """Draws the episodes, asks the candidates, and gives the scores of all that the folder has.

    Args:
        model: folder of the language model.
        folder: for episodes and verdicts.
        systems: names of those to work on; all by default.
        candidates: names of those to ask; all by default.
        most_failures: episodes of each faulty system that each candidate is asked about.
        multiwoz: folder of the few-shot files of IC-DST, for the system `multiwoz`.

    Returns:
        By part (`choosing`, `held_out`) and variant.

    Raises:
        ConfigError: no such model, system or candidate.
    """
    every = load_systems(multiwoz)
    for what, names, known in (("system", systems, every), ("candidate", candidates, CANDIDATES)):
        for name in names:
            if name not in known:
                raise ConfigError(f"{what} {name!r}", hint=f"use one of {', '.join(known)}")
    config = LocalModelConfig(path=str(model), plain_format=FORMAT, batch_size=16)
    shared = SharedPrompts(LocalModel.load(config))
    for name in systems or every:
        faulty = _episodes(folder, every[name], shared)
        _ask(folder / f"verdicts-{name}.jsonl", shared, faulty, candidates or tuple(CANDIDATES), most_failures)
    return scores_of(folder, every, most_failures)


def _episodes(folder: Path, system: RealSystem, model: SharedPrompts) -> list[FaultySystem]:
    path = folder / f"episodes-{system.name}.jsonl"
    if not path.exists():
        with working(f"planting faults in {system.name}", bar=False):
            faulty = plant_faults(system, model)
            share = healthy_share(system, model)
        write_episodes(path, faulty)
        console.print(f"{system.name}: {share:.2f} of its tasks solved, {len(faulty)} faults that make some fail")
    return read_episodes(path, system)


def _ask(
    path: Path, model: SharedPrompts, faulty: Sequence[FaultySystem], candidates: Sequence[str], most_failures: int
) -> None:
    done = {result.key for result in read_results(path)}
    for each in tracked(faulty, path.stem, bar=False):
        for failure in each.failures[:most_failures]:
            for name in candidates:
                if (name, each.name, failure.trace.id) not in done:
                    verdicts = CANDIDATES[name](model, each, failure)
                    result = Result(candidate=name, faulty=each.name, task=failure.trace.id, verdicts=verdicts)
                    append_result(path, result)
        model.forget_states()


def scores_of(folder: Path, systems: Mapping[str, RealSystem], most_failures: int) -> dict[str, dict[str, RealScore]]:
    """The scores of all verdicts in a folder, by part and variant.

    Args:
        folder: of `measure_real_world`.
        systems: by name.
        most_failures: episodes of each faulty system that count.
    """
    found: dict[str, dict[str, list[tuple[FaultySystem, float, Verdict]]]] = defaultdict(lambda: defaultdict(list))
    for name, system in systems.items():
        path = folder / f"episodes-{name}.jsonl"
        if not path.exists():
            continue
        episodes = {
            (each.name, failure.trace.id): (each, failure.culprits)
            for each in read_episodes(path, system)
            for failure in each.failures[:most_failures]
        }
        results = [
            result
            for result in read_results(folder / f"verdicts-{name}.jsonl")
            if (result.faulty, result.task) in episodes
        ]
        for result in (*results, *_together(results, {each.name: each for each, _ in episodes.values()})):
            faulty, culprits = episodes[result.faulty, result.task]
            for variant, verdict in result.verdicts.items():
                found[system.part][variant].append((faulty, hit(verdict.blame, faulty.nodes, culprits), verdict))
    return {
        part: {variant: _score(each) for variant, each in variants.items()} for part, variants in sorted(found.items())
    }


def _together(results: Sequence[Result], faulty: Mapping[str, FaultySystem]) -> list[Result]:
    """The evidence of all failures of one fault together, for each of them."""
    by_fault: dict[str, list[tuple[Result, Verdict]]] = defaultdict(list)
    for result in results:
        for verdict in result.verdicts.values():
            if verdict.features:
                by_fault[result.faulty].append((result, verdict))
    found: list[Result] = []
    for name, asked in by_fault.items():
        blame = probabilities([verdict.features for _, verdict in asked], faulty[name].nodes)
        for result, verdict in asked:
            found.append(replace(result, verdicts={TOGETHER: replace(verdict, blame=blame)}))
    return found


def weights_of(folder: Path, systems: Mapping[str, RealSystem]) -> dict[str, float]:
    """The weights of the evidence, fitted to the verdicts on the choosing systems in a folder."""
    known: list[Known] = []
    for name, system in systems.items():
        path = folder / f"episodes-{name}.jsonl"
        if system.part != "choosing" or not path.exists():
            continue
        culprits = {
            (each.name, failure.trace.id): failure.culprits
            for each in read_episodes(path, system)
            for failure in each.failures
        }
        for result in read_results(folder / f"verdicts-{name}.jsonl"):
            for verdict in result.verdicts.values():
                if verdict.features:
                    whose = culprits[result.faulty, result.task]
                    known.append(Known(group=result.faulty, features=verdict.features, culprits=whose))
    return fit_weights(known) if known else {}


def _score(asked: Sequence[tuple[FaultySystem, float, Verdict]]) -> RealScore:
    by_system: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    by_kind: dict[str, list[float]] = defaultdict(list)
    cost = Cost()
    for faulty, right, verdict in asked:
        by_system[faulty.system.name][faulty.name].append(right)
        by_kind[faulty.kind].append(right)
        cost += verdict.cost
    count = len(asked)
    low, high = _interval([list(each.values()) for each in by_system.values()])
    return RealScore(
        top1=mean(right for _, right, _ in asked),
        low=low,
        high=high,
        by_system={name: mean(_flat(each.values())) for name, each in sorted(by_system.items())},
        by_kind={kind: mean(each) for kind, each in sorted(by_kind.items())},
        num_episodes=count,
        cost=Cost(
            answers=round(cost.answers / count),
            passes=round(cost.passes / count),
            tokens=round(cost.tokens / count),
            seconds=cost.seconds / count,
        ),
        calibration_error=_calibration_error(asked),
    )


def _flat(groups: Iterable[Sequence[float]]) -> list[float]:
    return [value for group in groups for value in group]


def _interval(systems: Sequence[Sequence[Sequence[float]]]) -> tuple[float, float]:
    """95 % of the means over resampled systems, and faulty versions within each."""
    rng = Random("resamples")
    means: list[float] = []
    for _ in range(_RESAMPLES):
        drawn = [
            group for system in rng.choices(systems, k=len(systems)) for group in rng.choices(system, k=len(system))
        ]
        means.append(mean(_flat(drawn)))
    means.sort()
    return means[int(0.025 * _RESAMPLES)], means[int(0.975 * _RESAMPLES) - 1]


def _calibration_error(asked: Sequence[tuple[FaultySystem, float, Verdict]]) -> float | None:
    """Expected calibration error: mean over ten bins of |confidence - share right|, weighted by their episodes."""
    if any(not verdict.is_probability for _, _, verdict in asked):
        return None
    bins: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for _, right, verdict in asked:
        confidence = max(verdict.blame.values())
        bins[min(9, int(10 * confidence))].append((confidence, right))
    gaps = (len(each) * abs(mean(c for c, _ in each) - mean(r for _, r in each)) for each in bins.values())
    return sum(gaps) / len(asked)


def show(scores: Mapping[str, Mapping[str, RealScore]]) -> None:
    """Prints the held-out scores beside those of the systems that methods are chosen on."""
    held, before = scores.get("held_out", {}), scores.get("choosing", {})
    of = held or before
    table = Table(title="share of planted faults in real systems whose culprit is named first")
    systems = sorted({name for score in of.values() for name in score.by_system})
    headings = ("method", "top-1", "95 %", "to choose", "ECE", *systems, "episodes", "answers", "passes", "tokens", "s")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for name, score in sorted(of.items(), key=lambda item: -item[1].top1):
        table.add_row(
            name,
            f"{score.top1:.3f}",
            f"{score.low:.2f}-{score.high:.2f}",
            f"{before[name].top1:.3f}" if name in before else "",
            "" if score.calibration_error is None else f"{score.calibration_error:.3f}",
            *(f"{score.by_system[system]:.2f}" if system in score.by_system else "" for system in systems),
            str(score.num_episodes),
            str(score.cost.answers),
            str(score.cost.passes),
            str(score.cost.tokens),
            f"{score.cost.seconds:.2f}",
        )
    results(min_width=170).print(table)
