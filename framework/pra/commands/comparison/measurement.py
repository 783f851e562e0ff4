"""What is done with a part of a comparison: trained by `framework fit`, sampled, measured."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from pathlib import Path

import torch

from framework.core.console import tracked
from framework.core.errors import CheckpointError, ConfigError, TrainingError
from framework.core.serialization import JsonDict, to_json
from framework.core.settings.fit_command import as_words, fit_command
from framework.core.shapes import Images
from framework.evaluation.features import ClassifierFeatures
from framework.evaluation.grid import column_headings, save_grid
from framework.evaluation.samples import SampleSet, write_npz
from framework.pra.checkpoint import load_objective, load_trained
from framework.pra.commands.comparison.judge import Judge, reconstruction_l1
from framework.pra.commands.comparison.parts import Part, num_parameters
from framework.pra.commands.comparison.results import PartResult
from framework.pra.generate import balanced_labels, generate
from framework.pra.network.generator import ImageGenerator
from framework.pra.network.model import PRA
from framework.pra.rollout_gap import measure_rollout_gap
from framework.pra.sampling import SamplerConfig
from framework.training.checkpoint.layout import FOLDER, name_of

GRID_ROWS = 8
SAMPLES_BATCH = 500


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How every part is trained and measured.

    Attributes:
        recipe: of the training, with its digest.
        recipe_sha256: of that file.
        options: further ones of `framework fit`.
        features: what the distances are measured in, in words.
        guidance: scales to sample at, besides 1.
        num: samples of each scale.
        steps: of the sampler.
        svm_accuracy: also measured.
        training_steps: after which every part is measured, in rising order; none for the recipe's last step.
        classifier_sha256: of the recipe of the network that measures, where it is trained here.
        weights_sha256: of that network where it is given.
    """

    recipe: str
    recipe_sha256: str
    options: tuple[str, ...]
    features: str
    guidance: tuple[float, ...]
    num: int
    steps: int
    svm_accuracy: bool
    training_steps: tuple[int, ...] = ()
    classifier_sha256: str | None = None
    weights_sha256: str | None = None

    def __post_init__(self) -> None:
        if self.num < 2:
            raise ConfigError(f"num {self.num}", hint="give 2 samples or more")
        if self.training_steps != tuple(sorted(set(self.training_steps))) or min(self.training_steps, default=1) < 1:
            problem = f"training_steps {list(self.training_steps)}"
            raise ConfigError(problem, hint="give rising numbers of steps from 1 on, such as [1000, 2000, 4000]")
        if self.training_steps and any(each.startswith("--trainer.max_steps") for each in self.options):
            problem = f"training_steps {list(self.training_steps)} and --trainer.max_steps among the options"
            raise ConfigError(problem, hint="leave out the option: parts are trained to the largest of training_steps")

    @property
    def training(self) -> dict[str, object]:
        """What a trained part, or a trained classifier, cannot do without being trained anew."""
        return {
            "recipe_sha256": self.recipe_sha256,
            "options": list(self.options),
            "classifier_sha256": self.classifier_sha256,
        }

    @property
    def samplers(self) -> list[SamplerConfig]:
        """One for each scale, first that without guidance. Raises ConfigError."""
        return [SamplerConfig(steps=self.steps, guidance=scale) for scale in sorted({1.0, *self.guidance})]

    @property
    def settings(self) -> JsonDict:
        """What a result depends on besides the part and how long that was trained."""
        return {name: value for name, value in to_json(self).items() if name not in ("recipe", "training_steps")}

    @property
    def moments(self) -> tuple[int | None, ...]:
        """When a part is measured: after so many steps, or at the end of the recipe (None)."""
        return self.training_steps or (None,)

    @property
    def training_options(self) -> list[str]:
        """Of `framework fit`, with a checkpoint that stays at each of `training_steps`."""
        if not self.training_steps:
            return [*self.options]
        every = gcd(*self.training_steps)
        steps = {
            "trainer.max_steps": self.training_steps[-1],
            "checkpoint.every_n_steps": every,
            "checkpoint.keep_every_n_steps": every,
        }
        return [*self.options, *as_words(steps)]


def fit(recipe: str, run: Path, settings: Mapping[str, object], options: Sequence[str] = (), *, seed: int) -> None:
    """Trains a run to its end, or goes on with it, in a process of its own.

    Args:
        recipe: of the run.
        run: its folder.
        settings: of `framework fit`.
        options: further ones, as words.
        seed: of data and weights.

    Raises:
        TrainingError: it failed.
    """
    # A process of its own: a run must not inherit the random state or the memory of the one before.
    command = fit_command(recipe, {"run.dir": run, "seed_everything": seed, **settings}, options)
    if subprocess.run(command, check=False).returncode:
        raise TrainingError(f"training of {run.name} failed", hint=f"see its output; its run is in {run}")


def train_part(part: Part, run: Path, protocol: Protocol) -> None:
    """Trains a part, unless it is trained as long as is asked for. Raises TrainingError.

    Args:
        part: which.
        run: its folder.
        protocol: recipe and options.
    """
    if protocol.training_steps and checkpoint_at(run, protocol.training_steps[-1]).is_dir():
        return
    chosen = part.architecture
    settings = {
        "model.architecture.variant": chosen.variant,
        "model.architecture.image_size": chosen.image_size,
        "model.architecture.patch_size": chosen.patch_size,
        "model.architecture.depth": chosen.depth,
        "model.architecture.head_width": chosen.head_width,
        "data.images.size": chosen.image_size,
        "model.init_args.seed": part.seed,
    }
    fit(protocol.recipe, run, settings, protocol.training_options, seed=part.seed)


def train_classifier(recipe: str, run: Path, image_size: int) -> ClassifierFeatures:
    """A classifier of images of a size, trained unless it is. Raises TrainingError.

    Args:
        recipe: of a `ClassifierModule`.
        run: its folder.
        image_size: side in pixels.
    """
    fit(recipe, run, {"data.images.size": image_size}, seed=0)
    return ClassifierFeatures(str(run))


def checkpoint_at(run: Path, training_steps: int | None) -> Path:
    """What a part is measured from: a checkpoint, or the run itself, whose newest is taken (None)."""
    return run if training_steps is None else run / FOLDER / name_of(training_steps)


def results_folder(run: Path, training_steps: int | None) -> Path:
    """Where what is measured of a part after so many steps lies, or at the end of its recipe (None)."""
    return run if training_steps is None else run / f"measured-{training_steps}"


def measure_part(
    part: Part, run: Path, judge: Judge, protocol: Protocol, device: torch.device, training_steps: int | None
) -> PartResult:
    """Samples and measures a trained part; samples are kept beside it, with a grid of the first.

    Args:
        part: which.
        run: its folder.
        judge: measures images of its size.
        protocol: how many samples, at which scales.
        device: where models run.
        training_steps: of the checkpoint to measure; None for the newest.

    Raises:
        CheckpointError: the run has none, or none of that step.
    """
    checkpoint, out = checkpoint_at(run, training_steps), results_folder(run, training_steps)
    if not checkpoint.is_dir():
        problem = f"{run} has kept no checkpoint after {training_steps} steps"
        raise CheckpointError(problem, hint="leave that number out of training_steps, or take another folder")
    trained = load_trained(checkpoint)
    out.mkdir(exist_ok=True)
    model, config = trained.model.to(device), trained.model.config
    labels = balanced_labels(protocol.num, range(config.num_classes))
    metrics: dict[str, dict[str, float]] = {}
    unguided: Images | None = None
    for sampler in protocol.samplers:
        scale = sampler.guidance
        batches = generate(model, labels, seed=part.seed, sampler=sampler, batch_size=SAMPLES_BATCH, device=device)
        drawn = tracked(batches, f"samples of {part.name}, guidance {scale:g}", total=protocol.num, images=len)
        images = torch.cat(list(drawn))
        unguided = images if unguided is None else unguided
        samples = SampleSet.from_images(images, torch.tensor(labels), name=f"{part.name}, guidance {scale:g}")
        metrics[f"{scale:g}"] = judge.metrics(samples, svm_accuracy=protocol.svm_accuracy)
        write_npz(out / f"guidance-{scale:g}.npz", samples)
        columns = min(config.num_classes, 10)
        headings = column_headings(range(columns), trained.class_names) if config.num_classes > 1 else []
        shown = [image for image, label in zip(images, labels, strict=True) if label < columns][: columns * GRID_ROWS]
        save_grid(out / f"guidance-{scale:g}.png", shown, columns=columns, headings=headings)
    assert unguided is not None
    return PartResult(
        variant=config.variant,
        image_size=config.image_size,
        token_size=config.pixel_size,
        seed=part.seed,
        training_steps=training_steps,
        num_parameters=num_parameters(config),
        metrics=metrics,
        rollout_gap=_rollout_gap(model, checkpoint, judge, unguided, torch.tensor(labels), device),
        reconstruction_l1=_reconstruction(model, judge, protocol.num, device),
        settings=protocol.settings,
    )


def _rollout_gap(
    model: ImageGenerator,
    checkpoint: Path,
    judge: Judge,
    rollouts: Images,
    labels: torch.Tensor,
    device: torch.device,
) -> float:
    """The gap against as many training images: on held-out ones it would hold what was not learned as well.

    Args:
        model: on the device.
        checkpoint: of it.
        judge: has the training images.
        rollouts: unguided samples.
        labels: their classes.
        device: where the model is.
    """
    images, known = judge.training_images(len(rollouts))
    if model.config.num_classes == 1:
        known = torch.zeros_like(known)
    gap = measure_rollout_gap(
        model,
        images.to(device),
        known.to(device),
        rollouts.to(device),
        labels.to(device),
        load_objective(checkpoint),
        batch_size=SAMPLES_BATCH,
    )
    return gap.ratio


def _reconstruction(model: ImageGenerator, judge: Judge, num: int, device: torch.device) -> float | None:
    if not isinstance(model, PRA) or model.encoder is None:
        return None
    images, labels = judge.held_out_images(num)
    if model.config.num_classes == 1:
        labels = torch.zeros_like(labels)
    return reconstruction_l1(model, images.to(device), labels.to(device))
