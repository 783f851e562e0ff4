"""The command `framework steps`; its docstring is its `--help`."""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch

from framework.core.console import console, tracked
from framework.core.devices import pick_device
from framework.core.errors import ConfigError
from framework.core.io import check_output_folder, locked_file
from framework.core.serialization import JsonDict
from framework.evaluation.distances import frechet_distance
from framework.evaluation.features import FeatureNetwork, extract_features
from framework.evaluation.features.network import Features
from framework.evaluation.samples import SampleSet, read_samples
from framework.pra.acceleration import Accelerated, accelerate
from framework.pra.checkpoint import load_trained
from framework.pra.commands.head_steps.figure import FIGURE, draw_steps
from framework.pra.commands.head_steps.results import (
    RESULTS,
    TABLE,
    StepPoint,
    StepResult,
    read_results,
    write_results,
    write_table,
)
from framework.pra.commands.sample_parts import weights_digest
from framework.pra.generate import balanced_labels
from framework.pra.sampling import SamplerConfig, SamplingMethod, check_classes, check_sampler

_LOCK = "steps.lock"
_BATCH = 250


def steps(
    out: str,
    *,
    runs: dict[str, list[str]],
    reference: str,
    features: FeatureNetwork,
    methods: list[SamplingMethod] = ["euler_maruyama", "heun", "jump"],  # noqa: B006 - never changed
    steps: list[int] = [1, 2, 4, 8, 16, 25, 50, 100],  # noqa: B006
    time_shifts: list[float] = [1.0],  # noqa: B006
    guidance: list[float] = [1.0, 1.5],  # noqa: B006
    seeds: list[int] = [0],  # noqa: B006
    num: int = 5000,
    limit: int | None = None,
    batch_size: int = 500,
    device: str = "auto",
) -> None:
    """Measure trained models' samples at several numbers of the head's steps, by several samplers.

    Writes steps.jsonl, a table and a figure: the Fréchet distance over the steps, a line for each label and sampler,
    bars from the least to the largest of a label's runs and seeds. What OUT holds already stays: call the command once
    for each set of runs and samplers. The first line is what the others are compared with, at its most steps.

    Args:
        out: folder of the results.
        runs: checkpoints, runs or exports by a label: `--runs '{flow: [runs/a, runs/b], jumps: [runs/c]}'`.
        reference: real images: a folder of shards or an .npz.
        features: network of the Fréchet distance, as for `framework evaluate`.
        methods: of the sampler; `jump` is left out for heads that know no jumps.
        steps: numbers of steps of the flow for each token.
        time_shifts: of the sampler, a line each.
        guidance: scales of guidance, a panel each.
        seeds: of the samples.
        num: samples of each point.
        limit: read at most so many real images.
        batch_size: images drawn at a time.
        device: where to run, such as cpu or cuda; auto takes a GPU if there is one.
    """
    folder, place = Path(out), pick_device(device)
    if num < 2 or batch_size < 1:
        raise ConfigError(f"num {num}, batch_size {batch_size}", hint="use 2 samples or more in batches of 1 or more")
    choices = product(guidance, methods, time_shifts, steps)
    samplers = [SamplerConfig(guidance=g, method=m, time_shift=shift, steps=n) for g, m, shift, n in choices]
    trained = [_Run.load(label, path, samplers, place) for label, paths in runs.items() for path in paths]
    if not any(run.samplers for run in trained) or not seeds:
        raise ConfigError("nothing to measure", hint="give a run, a method for its head, a number of steps and a seed")
    check_output_folder(folder)
    settings: JsonDict = {"num": num, "features": features.name, "reference": reference, "limit": limit}
    settings["features_sha256"] = weights_digest(features)
    with locked_file(folder / _LOCK):
        results = read_results(folder / RESULTS)
        for run in trained:
            judge = _Judge.of(features, reference, limit, run)
            for point in (run.point(sampler, seed, settings) for sampler, seed in product(run.samplers, seeds)):
                if all(each.point != point for each in results):
                    results.append(judge.measure(run, point, num=num, batch_size=batch_size))
                    write_results(folder / RESULTS, results)
        alike = [each for each in results if each.point.settings == settings]
        write_table(folder / TABLE, alike)
        draw_steps(folder, alike)
    console.print(f"table in {folder / TABLE}, figure in {folder / FIGURE}.svg")


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A model that is measured.

    Attributes:
        label: of its line.
        weights_sha256: of its weights.
        ready: for sampling.
        samplers: that it can be sampled by.
    """

    label: str
    weights_sha256: str
    ready: Accelerated
    samplers: list[SamplerConfig]

    @classmethod
    def load(cls, label: str, path: str, samplers: list[SamplerConfig], device: torch.device) -> "_Run":
        """Load a model, and see what it can do before hours of sampling.

        Args:
            label: of its line.
            path: a checkpoint, a run's folder or an export.
            samplers: that are asked for.
            device: where it samples.
        """
        model = load_trained(path).model
        jumps = model.config.head_jumps
        fit = [each for each in samplers if jumps or each.method != "jump"]
        for sampler in fit:
            check_classes((), model.config.num_classes, sampler)
            check_sampler(model.config, sampler)
        digest = weights_digest(model)
        ready = accelerate(model, "fp32", "auto", device)
        return cls(label=label, weights_sha256=digest, ready=ready, samplers=fit)

    def point(self, sampler: SamplerConfig, seed: int, settings: JsonDict) -> StepPoint:
        """What is measured of it.

        Args:
            sampler: of the samples.
            seed: of the samples.
            settings: what the numbers depend on besides.
        """
        digest = self.weights_sha256
        return StepPoint(label=self.label, weights_sha256=digest, sampler=sampler, seed=seed, settings=settings)


@dataclass(frozen=True, kw_only=True)
class _Judge:
    """What samples of a model are measured against.

    Attributes:
        network: of the features.
        reference: features of the real images.
    """

    network: FeatureNetwork
    reference: Features

    @classmethod
    def of(cls, network: FeatureNetwork, reference: str, limit: int | None, run: _Run) -> "_Judge":
        """For the images of a model's size and channels.

        Args:
            network: of the features.
            reference: real images.
            limit: read at most so many of them.
            run: the model.
        """
        config = run.ready.model.config
        real = read_samples(reference, image_size=config.image_size, channels=config.channels, limit=limit)
        return cls(network=network, reference=_features(network, real, config.channels))

    def measure(self, run: _Run, point: StepPoint, *, num: int, batch_size: int) -> StepResult:
        """Draw samples and measure them.

        Args:
            run: the model.
            point: says how they are drawn.
            num: of them.
            batch_size: images drawn at a time.
        """
        sampler = point.sampler
        config = run.ready.model.config
        labels = balanced_labels(num, range(config.num_classes))
        what = f"{point.line}, guidance {sampler.guidance:g}, {sampler.steps} steps"
        starts = range(0, num, batch_size)
        drawn = [
            run.ready.draw(
                labels,
                range(start, min(start + batch_size, num)),
                seed=point.seed,
                sampler=sampler,
                full_batch=min(batch_size, num),
            )
            for start in tracked(starts, what, total=num, images=lambda start: min(batch_size, num - start))
        ]
        samples = SampleSet.from_images(torch.cat(drawn), torch.tensor(labels), name=what)
        features = _features(self.network, samples, config.channels)
        told = self.network.labelled_metrics("samples", samples, features)
        accuracy = next((value for name, value in told.items() if name.startswith("class_accuracy")), None)
        distance = frechet_distance(features, self.reference)
        console.print(f"{what}: Fréchet distance {distance:.4g}")
        return StepResult(point=point, distance=distance, class_accuracy=accuracy)


def _features(network: FeatureNetwork, images: SampleSet, channels: int) -> Features:
    return extract_features(network, images.with_channels(network.channels or channels), batch_size=_BATCH)
