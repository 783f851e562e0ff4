"""What is done with a trained part of a comparison: sampled, measured."""

from pathlib import Path

import torch

from framework.core.console import tracked
from framework.core.shapes import Images
from framework.evaluation.grid import column_headings, save_grid
from framework.evaluation.samples import SampleSet, write_npz
from framework.pra.checkpoint import load_objective, load_trained
from framework.pra.commands.comparison.judge import Judge, reconstruction_l1
from framework.pra.commands.comparison.parts import Part, num_parameters
from framework.pra.commands.comparison.protocol import Protocol
from framework.pra.commands.comparison.results import PartResult
from framework.pra.commands.comparison.training import checkpoint_of, results_folder
from framework.pra.generate import balanced_labels, generate
from framework.pra.network.generator import ImageGenerator
from framework.pra.network.model import PRA
from framework.pra.rollout_gap import measure_rollout_gap

GRID_ROWS = 8
SAMPLES_BATCH = 500


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
        training_steps: of the checkpoint to measure; None for the end of the recipe.

    Raises:
        CheckpointError: the run has none, or none of that step.
    """
    checkpoint, out = checkpoint_of(run, training_steps, protocol), results_folder(run, training_steps)
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
