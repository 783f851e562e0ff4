"""The command `framework evaluate`; its docstring is its `--help`."""

from dataclasses import replace

import torch

from framework.core.console import console, results, tracked
from framework.core.devices import pick_device
from framework.core.errors import ConfigError, DataError
from framework.core.io import check_outputs
from framework.evaluation.features import FeatureNetwork
from framework.evaluation.sample_report import evaluate_samples
from framework.evaluation.samples import SampleSet, dequantize_images, read_reference, read_samples
from framework.pra.checkpoint import load_objective, load_trained
from framework.pra.generate import balanced_labels, generate
from framework.pra.network.packing import pack_for_sampling
from framework.pra.rollout_gap import measure_rollout_gap
from framework.pra.sampling import SamplerConfig
from framework.tracking.data_identity import class_changes


def evaluate(
    samples: str,
    reference: str,
    *,
    features: FeatureNetwork,
    training: str | None = None,
    svm_accuracy: bool = False,
    checkpoint: str | None = None,
    gap_images: int = 1000,
    limit: int | None = None,
    batch_size: int = 256,
    device: str = "auto",
    out: str = "metrics.json",
) -> None:
    """Measure how far samples are from real images.

    A Fréchet distance, precision and recall in the features of a network (the Fréchet distance is called FID only for
    Inception), the distance of samples to their nearest training images beside that of held-out images, and the
    rollout gap of the model that made them.

    Of a reference .npz that holds `mu` and `sigma`, as ADM's reference batches do, these give the FID, and its images
    the rest; without images (arr_0) precision, recall and what is held out are left out. Images of shards are read as
    in training: of an animation the first frame, transparent pixels white, each cropped to its middle square.

    Args:
        samples: an .npz of `framework sample`, or a folder of shards.
        reference: real images, best held out from training: a folder of shards, or an .npz of them or of their `mu`
            and `sigma`.
        features: the network, such as `--features InceptionFeatures --features.weights FILE`,
            `--features ClassifierFeatures --features.checkpoint RUN`, or `--features PixelFeatures`.
        training: the training images, for nearest neighbours, svm_accuracy and the rollout gap.
        svm_accuracy: the share of samples whose class a support vector machine trained on `training` predicts; for
            small images.
        checkpoint: the model's checkpoint or run folder: adds the rollout gap, on training images where they are given
            (on held-out images what was not learned hides it), else on the reference.
        gap_images: images on each side of the rollout gap.
        limit: read at most so many images of each set of shards.
        batch_size: images in a forward pass.
        device: where to run, such as cpu or cuda; auto takes a GPU if there is one.
        out: JSON file for the report.
    """
    place = pick_device(device)
    check_outputs(out, inputs=[path for path in (samples, reference, training, checkpoint) if path])
    generated = read_samples(samples)
    size = generated.images.shape[1]
    real = read_reference(reference, image_size=size, limit=limit)
    known = read_samples(training, image_size=size, limit=limit) if training else None
    learned = known or real
    if checkpoint and not isinstance(learned, SampleSet):
        problem = f"{reference} holds mu and sigma alone, and a rollout gap needs images"
        raise ConfigError(problem, hint="give the training images with --training, or leave out --checkpoint")
    report = evaluate_samples(
        generated, real, network=features.to(place), training=known, svm_accuracy=svm_accuracy, batch_size=batch_size
    )
    if checkpoint and isinstance(learned, SampleSet):
        measured = _rollout_gap(checkpoint, learned, gap_images, place, batch_size)
        report = replace(report, metrics={**report.metrics, **measured})
    report.to_json(out)
    results().print(report.table())
    console.print(f"report in {out}")


def _rollout_gap(
    checkpoint: str, real: SampleSet, limit: int, device: torch.device, batch_size: int
) -> dict[str, float]:
    trained = load_trained(checkpoint)
    model = trained.model.to(device)
    real = real.with_channels(model.config.channels)
    if real.labels is None:
        raise DataError(f"{real.name} has no labels", hint="give a reference with classes, or leave out checkpoint")
    if trained.class_names and real.classes and (changes := class_changes(trained.class_names, real.classes)):
        problem = f"{real.name} has other classes than {checkpoint} was trained on ({'; '.join(changes)})"
        raise DataError(problem, hint="give images of the same class folders, or leave out checkpoint")
    count = min(limit, len(real))
    # Sets may be sorted by class.
    chosen = torch.linspace(0, len(real) - 1, count).long()
    images = dequantize_images(real.pixels(0, len(real))[chosen]).to(device)
    real_labels = torch.as_tensor(real.labels)[chosen].to(device)
    if model.config.num_classes == 1:
        real_labels = torch.zeros_like(real_labels)
    labels = balanced_labels(count, range(model.config.num_classes))
    packed = pack_for_sampling(model, "fp32")
    batches = generate(packed, labels, seed=0, sampler=SamplerConfig(), batch_size=batch_size, device=device)
    rollouts = torch.cat(list(tracked(batches, "rollouts", total=count, images=len))).to(device)
    gap = measure_rollout_gap(
        model,
        images,
        real_labels,
        rollouts,
        torch.tensor(labels, device=device),
        load_objective(checkpoint),
        batch_size=batch_size,
    )
    return {
        "rollout_gap/ratio": gap.ratio,
        "rollout_gap/flow_mse_training_inputs": gap.on_training_inputs,
        "rollout_gap/flow_mse_rollouts": gap.on_rollouts,
    }
