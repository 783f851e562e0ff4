"""The command `framework probe`; its docstring is its `--help`."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

import torch
from jaxtyping import Float
from rich.table import Table
from torch import Tensor

from framework.core.console import console, results, tracked
from framework.core.devices import pick_device
from framework.core.errors import ConfigError, DataError
from framework.core.io import atomic_write, check_outputs
from framework.core.serialization import to_json
from framework.core.shapes import Images
from framework.data.images.transforms import ImageTransform
from framework.data.shards.reader import ShardSet
from framework.evaluation.probe import FeatureSet, ProbeConfig, ProbeResult, curve_over_depth, probe_features
from framework.pra.checkpoint import load_pra
from framework.pra.image_features import Inputs, Position, depth_features
from framework.pra.network.build import build_generator
from framework.pra.network.config import VARIANTS
from framework.pra.network.generator import ImageGenerator
from framework.training.export import Weights

_SUFFIX = ".json"
Lines = dict[str, list[tuple[int, ProbeResult]]]
Extractor = Callable[[Images], list[Float[Tensor, "batch feature"]]]


def probe(
    checkpoint: str,
    training: str,
    test: str,
    *,
    depths: list[int] | None = None,
    position: Position = "mean",
    inputs: Inputs = "clean",
    baselines: bool = True,
    limit: int | None = None,
    weights: Weights = "ema",
    batch_size: int = 256,
    device: str = "auto",
    options: ProbeConfig = ProbeConfig(),
    out: str = "probe.json",
) -> None:
    """Measure what a model's features know of the images' classes, by linear probes.

    The causal transformer reads an image without its class; its hidden states at each depth are averaged over
    positions, and a linear classifier is trained on them. Beside it the nearest neighbours vote, and the same is done
    with raw pixels and with an untrained model. Writes OUT, and beside it a PNG: accuracy over depth.

    Features of all images are held in memory: for ImageNet `--options.solver sgd` and one of `--depths` at a time.

    Args:
        checkpoint: a checkpoint, or a run's folder for its newest one.
        training: a folder or URL of shards of labelled images, which the probes are trained on.
        test: the same of images which they are measured on.
        depths: layers after which states are read; 0 is before the first. All by default.
        position: `mean` over the raster, or the `last` one.
        inputs: `clean` pixels, or pixels `decoded` from the intermediate states, as the transformer sees in training.
        baselines: measure raw pixels and an untrained model as well.
        limit: at most so many images of each set, spread evenly.
        weights: the averaged weights (ema) or the raw ones.
        batch_size: images in a forward pass.
        device: where to run, such as cpu or cuda; auto takes a GPU if there is one.
        options: how probes are trained.
        out: the .json file to write; the picture is the .png file of the same name.
    """
    _check_options(out, position, inputs)
    place, picture = pick_device(device), Path(out.removesuffix(_SUFFIX) + ".png")
    check_outputs(out, beside=[picture], inputs=[checkpoint])
    model = load_pra(checkpoint, weights).to(place)
    _check_inputs(inputs, model)
    chosen = _chosen_depths(depths, model.config.depth)
    sets = _two_parts(training, test)
    extractors: dict[str, Extractor] = {"trained": _of_model(model, position, inputs, chosen)}
    if baselines:
        untrained = _of_model(build_generator(model.config).eval().to(place), position, "clean", chosen)
        extractors |= {"untrained": untrained, "pixels": _pixels}
    # One reading of the images serves all.
    known, asked = (_extract(each, extractors, model, limit=limit, batch_size=batch_size) for each in sets)
    found = {
        name: [probe_features(*each, options) for each in zip(known[name], asked[name], strict=True)]
        for name in extractors
    }
    counts = {"num_training": len(known["trained"][0]), "num_test": len(asked["trained"][0])}
    raw = found.pop("pixels")[0] if baselines else None
    lines = {name: list(zip(chosen, each, strict=True)) for name, each in found.items()}
    _write(out, picture, {"position": position, "inputs": inputs, **counts}, lines, raw)


def _write(out: str, picture: Path, settings: Mapping[str, object], lines: Lines, raw: ProbeResult | None) -> None:
    """The report and the picture, and a table on the terminal.

    Args:
        out: the JSON file.
        picture: accuracy over depth.
        settings: what was asked for.
        lines: results by depth, of each kind of features.
        raw: of raw pixels, if they were asked for.
    """
    report = {
        **settings,
        "depths": {name: {str(depth): to_json(result) for depth, result in line} for name, line in lines.items()},
        "pixels": None if raw is None else to_json(raw),
    }
    with atomic_write(Path(out)) as stream:
        stream.write(json.dumps(report, indent=2).encode())
    accuracies = {name: [(depth, result.linear) for depth, result in line] for name, line in lines.items()}
    curve_over_depth(str(picture), accuracies, None if raw is None else raw.linear)
    results().print(_table(lines, raw))
    console.print(f"report in {out}, accuracy over depth in {picture}")


def _check_options(out: str, position: Position, inputs: Inputs) -> None:
    if not out.endswith(_SUFFIX):
        raise ConfigError(f"out {out}", hint=f"give a name that ends in {_SUFFIX}; the picture is beside it as .png")
    if position not in get_args(Position) or inputs not in get_args(Inputs):
        raise ConfigError(f"position {position}, inputs {inputs}", hint="use mean or last, and clean or decoded")


def _two_parts(training: str, test: str) -> tuple[ShardSet, ShardSet]:
    sets = ShardSet(training), ShardSet(test)
    if sets[0].classes != sets[1].classes:
        raise DataError(f"{test} has other classes than {training}", hint="give two parts of one set")
    return sets


def _check_inputs(inputs: Inputs, model: ImageGenerator) -> None:
    variant = model.config.variant
    if inputs == "decoded" and VARIANTS[variant].target == "pixels":
        raise ConfigError(f"inputs decoded of variant {variant}", hint="its head generates pixels; use clean")


def _chosen_depths(depths: Sequence[int] | None, depth: int) -> list[int]:
    chosen = list(range(depth + 1)) if depths is None else list(depths)
    outside = [each for each in chosen if not 0 <= each <= depth]
    if outside or not chosen:
        raise ConfigError(f"depths {depths} of a model of {depth} layers", hint=f"use numbers from 0 to {depth}")
    return chosen


def _of_model(model: ImageGenerator, position: Position, inputs: Inputs, depths: Sequence[int]) -> Extractor:
    def extract(images: Images) -> list[Float[Tensor, "batch feature"]]:
        features = depth_features(model, images, position=position, inputs=inputs)
        return [features[depth] for depth in depths]

    return extract


def _pixels(images: Images) -> list[Float[Tensor, "batch feature"]]:
    return [images.flatten(1)]


def _extract(
    shards: ShardSet, extractors: dict[str, Extractor], model: ImageGenerator, *, limit: int | None, batch_size: int
) -> dict[str, list[FeatureSet]]:
    """Features of a set's images, by the extractor's name; images are decoded as for training and not kept."""
    config, device = model.config, next(model.parameters()).device
    transform = ImageTransform(size=config.image_size, channels=config.channels, read=shards.manifest.read)
    count = len(shards) if limit is None else min(limit, len(shards))
    if count < 1 or batch_size < 1:
        raise DataError(f"{shards.path} gives no images", hint="give shards with images, a limit and a batch above 0")

    def batches() -> Iterator[tuple[Images, list[int]]]:
        for start in range(0, count, batch_size):
            images: list[Float[Tensor, "channel height width"]] = []
            labels: list[int] = []
            for row in range(start, min(start + batch_size, count)):
                number = row * len(shards) // count
                data, label = shards.read(number)
                images.append(transform(data, name=shards.describe(number)))
                labels.append(label)
            yield torch.stack(images), labels

    kept: dict[str, list[list[Float[Tensor, "batch feature"]]]] = {name: [] for name in extractors}
    labels: list[int] = []
    description = f"features of {shards.path}"
    for images, theirs in tracked(batches(), description, total=count, images=lambda batch: len(batch[0])):
        labels += theirs
        for name, extract in extractors.items():
            kept[name].append([each.cpu() for each in extract(images.to(device))])
    truth = torch.tensor(labels)
    return {
        name: [FeatureSet(features=torch.cat(parts), labels=truth) for parts in zip(*each, strict=True)]
        for name, each in kept.items()
    }


def _table(lines: Lines, raw: ProbeResult | None) -> Table:
    table = Table("features", "depth", "linear probe", "nearest neighbours")
    for name, line in lines.items():
        for depth, result in line:
            table.add_row(name, str(depth), str(result.linear), str(result.neighbours or "-"))
    if raw is not None:
        table.add_row("raw pixels", "", str(raw.linear), str(raw.neighbours or "-"))
    return table
