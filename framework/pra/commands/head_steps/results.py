"""Distances at numbers of the head's steps, as records, JSON lines and a table."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from framework.core.errors import DataError
from framework.core.io import atomic_write
from framework.core.serialization import JsonDict, from_json, parse_object, to_json
from framework.pra.commands.comparison.results import Spread
from framework.pra.sampling import SamplerConfig

RESULTS = "steps.jsonl"
TABLE = "steps.md"
NEAR = 1.05
"""Distances up to so many times another's count as equal to it."""


@dataclass(frozen=True, kw_only=True)
class StepPoint:
    """What is measured: samples of a model.

    Attributes:
        label: of the models that are alike but for their seeds.
        weights_sha256: of the model.
        sampler: how the samples are drawn.
        seed: of the samples.
        settings: what the numbers depend on besides.
    """

    label: str
    weights_sha256: str
    sampler: SamplerConfig
    seed: int
    settings: JsonDict

    @property
    def line(self) -> str:
        """The name of its line in table and figure."""
        shift = self.sampler.time_shift
        return f"{self.label}, {self.sampler.method}" + ("" if shift == 1 else f", time shift {shift:g}")


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What was measured at a point.

    Attributes:
        point: where.
        distance: the Fréchet distance.
        class_accuracy: share of samples whose class the network names; None where it names none.
    """

    point: StepPoint
    distance: float
    class_accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Line:
    """Distances of a line at a guidance scale, over the seeds of models and of samples.

    Attributes:
        name: of the line.
        at: the distances by the number of steps.
    """

    name: str
    at: dict[int, Spread]

    def fewest(self, goal: float) -> int | None:
        """The least number of steps that brings the mean distance down to a goal, if one does."""
        return next((steps for steps, found in sorted(self.at.items()) if found.mean <= goal), None)


def read_results(path: Path) -> list[StepResult]:
    """The results in a file, none where it is missing.

    Raises:
        DataError: it is damaged.
    """
    if not path.is_file():
        return []
    try:
        return [from_json(StepResult, parse_object(each)) for each in path.read_bytes().splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path} holds other things than results ({error})", hint="take another folder") from error


def write_results(path: Path, results: Iterable[StepResult]) -> None:
    """Writes results as JSON lines."""
    with atomic_write(path) as stream:
        stream.writelines((json.dumps(to_json(each)) + "\n").encode() for each in results)


def lines_of(results: Sequence[StepResult], guidance: float) -> list[Line]:
    """The lines at a guidance scale, in the order in which they were first measured.

    Args:
        results: of all scales.
        guidance: the scale.
    """
    found: dict[str, dict[int, list[float]]] = {}
    for each in results:
        point = each.point
        if point.sampler.guidance == guidance:
            found.setdefault(point.line, {}).setdefault(point.sampler.steps, []).append(each.distance)
    return [
        Line(name=name, at={steps: Spread.of(values) for steps, values in sorted(at.items())})
        for name, at in found.items()
    ]


def scales_of(results: Iterable[StepResult]) -> list[float]:
    """The guidance scales of results, rising."""
    return sorted({each.point.sampler.guidance for each in results})


def reference_of(lines: Sequence[Line]) -> Spread:
    """What lines are compared with: the first of them at its most steps."""
    return lines[0].at[max(lines[0].at)]


def write_table(path: Path, results: Sequence[StepResult]) -> None:
    """Writes a table for each guidance scale.

    Args:
        path: of the Markdown file.
        results: one or more.
    """
    with atomic_write(path) as stream:
        stream.write("\n\n".join("\n".join(_table(results, scale)) for scale in scales_of(results)).encode() + b"\n")


def _table(results: Sequence[StepResult], guidance: float) -> list[str]:
    lines = lines_of(results, guidance)
    goal = NEAR * reference_of(lines).mean
    numbers = sorted({steps for line in lines for steps in line.at})
    last = f"steps for {NEAR:g} times the first line's {max(lines[0].at)}"
    head = [f"guidance {guidance:g}", *(str(steps) for steps in numbers), last]
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for line in lines:
        cells = [str(line.at.get(steps, "-")) for steps in numbers]
        rows.append(f"| {line.name} | {' | '.join(cells)} | {line.fewest(goal) or '-'} |")
    return rows
