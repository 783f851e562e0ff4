"""The method against the rows it is compared with: one recipe, every variant, equal parameters and steps."""

import json
import subprocess
import sys
from bisect import bisect_left
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch

from framework.core.console import console
from framework.core.errors import ConfigError, TrainingError
from framework.core.io import atomic_write, check_output_folder
from framework.core.text_files import read_yaml
from framework.evaluation.features import FeatureNetwork
from framework.pra.commands.evaluate import evaluate
from framework.pra.commands.sample import sample
from framework.pra.network.config import PRAConfig, VariantName
from framework.pra.network.model import PRA
from framework.pra.sampling import SamplerConfig

WIDTH_STEP = 8
MOST_IMAGES = 10_000


def num_parameters(config: PRAConfig) -> int:
    """Sampling parameters of an architecture, counted without making it."""
    with torch.device("meta"):
        return PRA(config).num_sampling_parameters()


def match_parameters(config: PRAConfig, goal: int) -> PRAConfig:
    """The architecture with the head's width, a multiple of 8, that brings its parameters nearest to `goal`.

    Variants without a pixel decoder are smaller; their head, which has to do the decoder's work, gets the difference.
    """

    def parameters_at(width: int) -> int:
        return num_parameters(replace(config, head_width=width))

    widths = range(WIDTH_STEP, 8 * config.head_width, WIDTH_STEP)
    reached = bisect_left(widths, goal, key=parameters_at)
    nearest = min(widths[max(0, reached - 1) : reached + 1], key=lambda width: abs(parameters_at(width) - goal))
    return replace(config, head_width=nearest)


def compare(
    recipe: str,
    out: str,
    *,
    features: FeatureNetwork,
    variants: list[VariantName] | None = None,
    guidance: list[float] = [1.0, 1.5],  # noqa: B006 - never changed
    num: int = 5000,
    steps: int = 50,
    svm_accuracy: bool = False,
    seed: int = 0,
    options: list[str] = [],  # noqa: B006
) -> None:
    """Train every variant of a recipe at equal parameters and steps, and measure their rollouts.

    Rows that are already trained in OUT are only measured, and a row that was cut off goes on.

    Args:
        recipe: the recipe of a PRA run.
        out: folder that gets a run for each row, `table.md` and `table.json`.
        features: network of the Fréchet distance, as for `framework evaluate`.
        variants: rows of the table; all by default.
        guidance: guidance scales to sample at.
        num: samples of each row and scale.
        steps: steps of the sampler.
        svm_accuracy: also measure how often a support vector machine predicts the samples' class; for small images.
        seed: seed of training and sampling.
        options: further options of `framework fit`, such as `--options '[--trainer.max_steps, "2000"]'`.
    """
    settings = _read_recipe(recipe)
    data = settings["data"]
    base = PRAConfig(**settings["model"]["init_args"]["architecture"])
    check_output_folder(out)
    goal = num_parameters(replace(base, variant="pra"))
    measurement = _Measurement(
        features=features,
        training=data["train"],
        validation=data["validation"],
        num=num,
        steps=steps,
        seed=seed,
        svm_accuracy=svm_accuracy,
    )
    rows: list[_Row] = []
    for variant in variants or get_args(VariantName):
        architecture = match_parameters(replace(base, variant=variant), goal)
        run = Path(out) / variant
        _fit(recipe, run, architecture, seed, options)
        metrics = {scale: measurement.metrics(run, scale, with_gap=scale == min(guidance)) for scale in guidance}
        rows.append(_Row(variant=variant, num_parameters=num_parameters(architecture), metrics=metrics))
        _write(Path(out), rows, svm_accuracy)
    console.print(f"table in {out}/table.md")


@dataclass(frozen=True, kw_only=True)
class _Measurement:
    """How the rollouts of every row are measured; the fields are arguments of `compare`, and the recipe's data."""

    features: FeatureNetwork
    training: str
    validation: str
    num: int
    steps: int
    seed: int
    svm_accuracy: bool

    def metrics(self, run: Path, guidance: float, *, with_gap: bool) -> dict[str, float]:
        """Samples from a run, and what is measured on them.

        Args:
            run: its folder.
            guidance: scale to sample at.
            with_gap: also measure the rollout gap.
        """
        report = run / f"guidance-{guidance:g}.json"
        samples = str(report.with_suffix(".npz"))
        sample(
            str(run),
            samples,
            num=self.num,
            seed=self.seed,
            batch_size=min(self.num, 1000),
            sampler=SamplerConfig(steps=self.steps, guidance=guidance),
        )
        evaluate(
            samples,
            self.validation,
            features=self.features,
            training=self.training,
            limit=MOST_IMAGES,
            svm_accuracy=self.svm_accuracy,
            checkpoint=str(run) if with_gap else None,
            out=str(report),
        )
        return json.loads(report.read_bytes())["metrics"]


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A row of the table; its metrics by guidance scale."""

    variant: str
    num_parameters: int
    metrics: dict[float, dict[str, float]]

    def as_json(self) -> dict[str, object]:
        measured = {f"guidance {scale:g}": metrics for scale, metrics in self.metrics.items()}
        return {"variant": self.variant, "parameters": self.num_parameters, **measured}


def _read_recipe(path: str) -> dict[str, Any]:
    settings = read_yaml(path)
    architecture = settings.get("model", {}).get("init_args", {}).get("architecture")
    if architecture is None or "validation" not in settings.get("data", {}):
        problem = f"{path} is not the recipe of a PRA run with validation data"
        raise ConfigError(problem, hint="give one such as recipes/pra/digits.yaml")
    return settings


def _fit(recipe: str, run: Path, architecture: PRAConfig, seed: int, options: list[str]) -> None:
    # A process of its own: a row must not inherit the random state or the memory of the row before.
    command = [sys.executable, "-m", "framework.cli.main", "fit", "--config", recipe, "--run.dir", str(run)]
    command += ["--model.architecture.variant", architecture.variant]
    command += ["--model.architecture.head_width", str(architecture.head_width)]
    command += ["--seed_everything", str(seed), "--model.init_args.seed", str(seed), *options]
    if subprocess.run(command, check=False).returncode:
        raise TrainingError(f"training of {architecture.variant} failed", hint=f"see its output; its run is in {run}")


def _write(out: Path, rows: list[_Row], svm_accuracy: bool) -> None:
    with atomic_write(out / "table.json") as file:
        file.write(json.dumps([row.as_json() for row in rows], indent=2).encode())
    guidance = list(rows[0].metrics)
    names = [f"Fréchet, guidance {scale:g}" for scale in guidance]
    names += [f"SVM accuracy, guidance {scale:g}" for scale in guidance] if svm_accuracy else []
    lines = ["| " + " | ".join(["row", "parameters", *names, "rollout gap"]) + " |", "|---" * (len(names) + 3) + "|"]
    for row in rows:
        measured = list(row.metrics.values())
        cells = [next(f"{v:.3f}" for k, v in m.items() if k == "fid" or k.startswith("frechet")) for m in measured]
        if svm_accuracy:
            cells += [f"{m['svm_accuracy/samples']:.1%}" for m in measured]
        gap = next(m["rollout_gap/ratio"] for m in measured if "rollout_gap/ratio" in m)
        lines.append(f"| `{row.variant}` | {row.num_parameters:,} | {' | '.join(cells)} | {gap:.2f} |")
    with atomic_write(out / "table.md") as file:
        file.write(("\n".join(lines) + "\n").encode())
