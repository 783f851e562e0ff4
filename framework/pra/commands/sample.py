"""The command `framework sample`; its docstring is its `--help`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from framework.core.console import console, tracked
from framework.core.devices import pick_device
from framework.core.errors import ConfigError
from framework.core.io import check_outputs
from framework.core.shapes import Images
from framework.evaluation.grid import column_headings, save_grid
from framework.evaluation.samples import SampleSet, write_npz
from framework.pra.checkpoint import load_trained
from framework.pra.commands.class_choice import Classes, chosen_classes
from framework.pra.generate import balanced_labels, generate
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
    sampler: SamplerConfig = SamplerConfig(),
) -> None:
    """Draw class-balanced images from a checkpoint.

    Writes OUT (`arr_0`: uint8, NHWC, RGB, as the ADM evaluator reads it; `arr_1`: labels; `classes`: their names) and,
    beside it, a PNG grid: a column for each of the first ten classes, and in it the first ten of its images.

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
        sampler: how tokens are drawn.
    """
    if num < 1 or batch_size < 1:
        raise ConfigError(f"num {num}, batch_size {batch_size}", hint="use 1 or more")
    if not out.endswith(_SUFFIX):
        raise ConfigError(f"out {out}", hint=f"give a name that ends in {_SUFFIX}; the grid is beside it as .png")
    place, grid = pick_device(device), Path(out.removesuffix(_SUFFIX) + ".png")
    check_outputs(out, grid, inputs=[checkpoint])
    trained = load_trained(checkpoint, weights)
    model, names = trained.model.to(place), trained.class_names
    chosen = chosen_classes(classes, model.config.num_classes, names)
    check_classes(chosen, model.config.num_classes, sampler)
    check_sampler(model.config, sampler)
    labels = balanced_labels(num, chosen)
    batches = generate(model, labels, seed=seed, sampler=sampler, batch_size=batch_size, device=place)
    images = torch.cat(list(tracked(batches, "sampling", total=-(-num // batch_size))))
    write_npz(out, replace(SampleSet.from_images(images, torch.tensor(labels), name=out), classes=names))
    _save_class_grid(grid, images, labels, names)
    console.print(f"{num} samples in {out}, a grid of them in {grid}")


def _save_class_grid(path: Path, images: Images, labels: Sequence[int], names: Sequence[str] | None) -> None:
    """A column for each class, the first of them where there are many; of a single class the first images.

    Args:
        path: of the PNG file.
        images: all that were drawn.
        labels: their classes.
        names: of the classes by their numbers, where they are known.
    """
    columns = list(dict.fromkeys(labels))[:_SIDE]
    if len(columns) == 1:
        save_grid(path, images[: _SIDE**2], columns=min(_SIDE, len(images)))
        return
    of_class = [[image for image, label in zip(images, labels, strict=True) if label == each] for each in columns]
    num_rows = min(_SIDE, max(len(each) for each in of_class))
    empty = torch.ones_like(images[0])
    rows = [each[row] if row < len(each) else empty for row in range(num_rows) for each in of_class]
    save_grid(path, rows, columns=len(columns), headings=column_headings(columns, names))
