"""The command `framework sample`; its docstring is its `--help`."""

import os
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from framework.core.console import console, tracked
from framework.core.devices import pick_device
from framework.core.errors import ConfigError
from framework.core.io import check_outputs
from framework.core.serialization import to_json
from framework.evaluation.grid import column_headings, save_grid
from framework.evaluation.samples import SampleSet, dequantize_images, write_npz
from framework.pra.acceleration import Execution, accelerate
from framework.pra.checkpoint import load_trained
from framework.pra.commands.class_choice import Classes, chosen_classes
from framework.pra.commands.sample_parts import SampleParts, Share, weights_digest
from framework.pra.generate import balanced_labels
from framework.pra.network.packing import Precision
from framework.pra.sampling import SamplerConfig, check_classes, check_sampler
from framework.training.export import Weights

_SUFFIX = ".npz"
_SIDE = 10
"""Columns and rows of the grid, at most."""


def sample(
    checkpoint: str,
    out: str,
    *,
    num: int = 1000,
    classes: Classes | None = None,
    seed: int = 0,
    batch_size: int = 256,
    weights: Weights = "ema",
    device: str = "auto",
    precision: Precision = "fp32",
    execution: Execution = "auto",
    sampler: SamplerConfig = SamplerConfig(),
) -> None:
    """Draw class-balanced images from a checkpoint.

    Writes OUT (`arr_0`: uint8, NHWC, RGB, as the ADM evaluator reads it; `arr_1`: labels; `classes`: their names) and,
    beside it, a PNG grid: a column for each of the first ten classes, and in it the first ten of its images.

    Batches are kept in OUT.parts until all are there: a second start goes on where the first ended. Processes that
    torchrun or srun starts share them, and the images are the same whatever their number.

    Args:
        checkpoint: a checkpoint, or a run's folder for its newest one.
        out: the .npz file to write; the grid is the .png file of the same name.
        num: number of images.
        classes: classes to draw, in turn, such as `cat,dog`, or their numbers; names with commas in a list:
            '["tench, Tinca tinca", 5]'. All of them by default.
        seed: the noise of image number i is a function of (seed, i) alone, whatever the batch size.
        batch_size: images drawn at a time.
        weights: the averaged weights (ema) or the raw ones.
        device: where to run, such as cpu or cuda; auto takes a GPU if there is one.
        precision: of matrix products: fp32, or bf16, which is faster and rounds.
        execution: auto packs weights for the processor, or makes one CUDA graph of a token's work; compiled has
            torch.compile fuse it besides, for a minute first; eager is the plain reference. Equal up to rounding.
        sampler: how tokens are drawn.
    """
    _check_options(num, batch_size, out, precision, execution)
    place, grid = pick_device(device), Path(out.removesuffix(_SUFFIX) + ".png")
    check_outputs(out, beside=[grid], inputs=[checkpoint])
    trained = load_trained(checkpoint, weights)
    model, names = trained.model, trained.class_names
    chosen = chosen_classes(classes, model.config.num_classes, names)
    check_classes(chosen, model.config.num_classes, sampler)
    check_sampler(model.config, sampler)
    labels = balanced_labels(num, chosen)
    share = Share.of_environment(os.environ)
    settings = {"num": num, "classes": chosen, "seed": seed, "batch_size": batch_size, "precision": precision}
    settings |= {"weights": weights_digest(model), "sampler": to_json(sampler)}
    parts = SampleParts(out, settings, num_images=num, batch_size=batch_size)
    ready = accelerate(model, precision, execution, share.device(place))
    missing = parts.missing(share)
    for part in tracked(missing, "sampling", total=sum(map(parts.size, missing)), images=parts.size):
        drawn = ready.draw(labels, parts.numbers(part), seed=seed, sampler=sampler, full_batch=min(batch_size, num))
        parts.write(part, SampleSet.from_images(drawn, name=out).images)
    if share.rank == 0:
        parts.wait()
        made = SampleSet(images=parts.read(), labels=np.array(labels, np.int64), name=out, classes=names)
        _write(out, grid, made)
        parts.remove()


def _write(out: str, grid: Path, samples: SampleSet) -> None:
    """The samples and their grid.

    Args:
        out: the .npz file.
        grid: the PNG file.
        samples: all of them.
    """
    write_npz(out, samples)
    _save_class_grid(grid, samples)
    console.print(f"{len(samples)} samples in {out}, a grid of them in {grid}")


def _check_options(num: int, batch_size: int, out: str, precision: Precision, execution: Execution) -> None:
    if num < 1 or batch_size < 1:
        raise ConfigError(f"num {num}, batch_size {batch_size}", hint="use 1 or more")
    if not out.endswith(_SUFFIX):
        raise ConfigError(f"out {out}", hint=f"give a name that ends in {_SUFFIX}; the grid is beside it as .png")
    if precision not in get_args(Precision):
        raise ConfigError(f"precision {precision!r}", hint=f"use one of {', '.join(get_args(Precision))}")
    if execution not in get_args(Execution):
        raise ConfigError(f"execution {execution!r}", hint=f"use one of {', '.join(get_args(Execution))}")


def _save_class_grid(path: Path, samples: SampleSet) -> None:
    """A column for each class, the first of them where there are many; of a single class the first images.

    Args:
        path: of the PNG file.
        samples: all that were drawn, with their classes.
    """
    assert samples.labels is not None
    labels: list[int] = samples.labels.tolist()

    def image(number: int) -> Float[Tensor, "channel height width"]:
        return dequantize_images(samples.pixels(number, number + 1))[0]

    columns = list(dict.fromkeys(labels))[:_SIDE]
    if len(columns) == 1:
        first = [image(number) for number in range(min(len(samples), _SIDE**2))]
        save_grid(path, first, columns=min(_SIDE, len(samples)))
        return
    of_class = [[number for number, label in enumerate(labels) if label == each][:_SIDE] for each in columns]
    num_rows = max(len(each) for each in of_class)
    empty = torch.ones_like(image(0))
    rows = [image(each[row]) if row < len(each) else empty for row in range(num_rows) for each in of_class]
    save_grid(path, rows, columns=len(columns), headings=column_headings(columns, samples.classes))
