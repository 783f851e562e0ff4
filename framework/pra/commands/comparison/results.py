"""What was measured of the parts of a comparison, as records, JSON lines and a table."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from framework.core.errors import DataError
from framework.core.io import atomic_write
from framework.core.serialization import JsonDict, from_json, parse_object, to_json

RESULT = "result.json"
RESULTS = "results.jsonl"
TABLE = "table.md"


@dataclass(frozen=True, kw_only=True)
class PartResult:
    """What was measured of a part.

    Attributes:
        variant: the row.
        image_size: side of the images in pixels.
        token_size: values of a pixel token.
        seed: of training and sampling.
        training_steps: after which it was measured; None at the end of the recipe.
        num_parameters: that sampling needs.
        metrics: of the samples, by guidance scale and name.
        rollout_gap: see `framework.pra.rollout_gap`.
        reconstruction_l1: of held-out images, per value in [-1, 1]; None where the head generates pixels.
        settings: what the numbers depend on besides; a part with others is measured anew.
    """

    variant: str
    image_size: int
    token_size: int
    seed: int
    num_parameters: int
    metrics: dict[str, dict[str, float]]
    rollout_gap: float
    reconstruction_l1: float | None
    settings: JsonDict
    training_steps: int | None = None

    def distance(self, guidance: str) -> float:
        """The Fréchet distance of the samples at a guidance scale."""
        return next(v for k, v in self.metrics[guidance].items() if k == "fid" or k.startswith("frechet"))


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A number over seeds: their mean, the least and the largest."""

    mean: float
    low: float
    high: float
    num: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of one value or more."""
        low, high = min(values), max(values)
        # Rounding may leave the mean of equal numbers outside of them, and bars have no length below 0.
        mean = min(max(sum(values) / len(values), low), high)
        return cls(mean=mean, low=low, high=high, num=len(values))

    def __str__(self) -> str:
        if self.num == 1:
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"


Quantity = Callable[[PartResult], float | None]


def spreads(results: Iterable[PartResult], quantity: Quantity) -> dict[tuple[str, int], Spread]:
    """A quantity over seeds, by row and image size; without those that have none.

    Args:
        results: of parts.
        quantity: of one.
    """
    values: dict[tuple[str, int], list[float]] = {}
    for each in results:
        value = quantity(each)
        if value is not None:
            values.setdefault((each.variant, each.image_size), []).append(value)
    return {key: Spread.of(found) for key, found in values.items()}


def read_result(folder: Path) -> PartResult | None:
    """The result in a part's folder, if there is one.

    Raises:
        DataError: it is damaged.
    """
    path = folder / RESULT
    if not path.is_file():
        return None
    try:
        return from_json(PartResult, parse_object(path.read_bytes()), allow_missing=True)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a result ({error})", hint="remove it: the part is measured anew") from error


def write_result(folder: Path, result: PartResult) -> None:
    """Writes a part's result into its folder."""
    with atomic_write(folder / RESULT) as stream:
        stream.write(json.dumps(to_json(result), indent=1).encode())


def write_all(out: Path, results: Sequence[PartResult], floors: Mapping[int, float]) -> None:
    """Writes the results of all parts as JSON lines and as a table for each number of training steps, the most first.

    Args:
        out: folder of the comparison.
        results: of parts, one or more.
        floors: distance of training images to the held-out ones, by image size.
    """
    with atomic_write(out / RESULTS) as stream:
        stream.writelines((json.dumps(to_json(each)) + "\n").encode() for each in results)
    lines: list[str] = []
    for steps, found in sorted(by_training_steps(results).items(), reverse=True):
        lines += [f"After {steps:,} training steps:", ""] if steps else []
        lines += [*_table(found), ""]
    for size, floor in sorted(floors.items()):
        lines += [f"Training images of {size} pixels are at {floor:.3f} from the held-out ones.", ""]
    with atomic_write(out / TABLE) as stream:
        stream.write("\n".join(lines).encode())


def by_training_steps(results: Iterable[PartResult]) -> dict[int, list[PartResult]]:
    """Results of parts that were trained equally long together; 0 for those at the end of a recipe."""
    found: dict[int, list[PartResult]] = {}
    for each in results:
        found.setdefault(each.training_steps or 0, []).append(each)
    return found


def quantities(results: Sequence[PartResult]) -> dict[str, Quantity]:
    """The columns of the table, by their headings."""
    first = results[0].metrics
    found: dict[str, Quantity] = {}
    for scale in first:
        found[f"Fréchet, guidance {scale}"] = lambda part, scale=scale: part.distance(scale)
    for scale, metrics in first.items():
        for name, heading in (("svm_accuracy/samples", "SVM accuracy"), ("class_accuracy_samples", "class accuracy")):
            key = next((each for each in metrics if each.startswith(name)), None)
            if key is not None:
                found[f"{heading}, guidance {scale}"] = lambda part, scale=scale, key=key: part.metrics[scale].get(key)
    found["rollout gap"] = lambda part: part.rollout_gap
    found["reconstruction L1"] = lambda part: part.reconstruction_l1
    return found


def _table(results: Sequence[PartResult]) -> list[str]:
    columns = {name: spreads(results, quantity) for name, quantity in quantities(results).items()}
    lines = ["| " + " | ".join(["row", "token", "parameters", "seeds", *columns]) + " |"]
    lines.append("|---" * (len(columns) + 4) + "|")
    rows = {(each.image_size, each.variant): each for each in results}
    for (size, variant), part in sorted(rows.items(), key=lambda item: item[0][0]):
        cells = [str(found.get((variant, size), "-")) for found in columns.values()]
        num = next(iter(columns.values()))[variant, size].num
        lines.append(f"| `{variant}` | {part.token_size} | {part.num_parameters:,} | {num} | {' | '.join(cells)} |")
    return lines
