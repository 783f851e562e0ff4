"""The command `framework sample`; its docstring is its `--help`."""

from pathlib import Path

import torch
from rich.progress import track

from framework.core.console import console
from framework.core.devices import pick_device
from framework.core.errors import ConfigError
from framework.evaluation.grid import save_grid
from framework.evaluation.samples import SampleSet, write_npz
from framework.pra.checkpoint import load_pra
from framework.pra.generate import balanced_labels, generate
from framework.pra.sampling import SamplerConfig
from framework.training.export import Weights


def sample(
    checkpoint: str,
    out: str,
    *,
    num: int = 1000,
    classes: list[int] | None = None,
    seed: int = 0,
    batch_size: int = 256,
    weights: Weights = "ema",
    device: str = "auto",
    sampler: SamplerConfig = SamplerConfig(),
) -> None:
    """Draw class-balanced images from a checkpoint.

    Writes OUT (`arr_0`: uint8, NHWC, RGB, as the ADM evaluator reads it; `arr_1`: labels) and, beside it, a PNG grid of
    the first hundred with a class in each column.

    Args:
        checkpoint: a checkpoint, or a run's folder for its newest one.
        out: the .npz file to write.
        num: number of images.
        classes: classes to draw, in turn; all of them by default.
        seed: the noise of image number i is a function of (seed, i) alone, whatever the batch size.
        batch_size: images drawn at a time.
        weights: the averaged weights (ema) or the raw ones.
        device: where to run, such as cpu or cuda; auto takes a GPU if there is one.
        sampler: how tokens are drawn.
    """
    if num < 1 or batch_size < 1:
        raise ConfigError(f"num {num}, batch_size {batch_size}", hint="use 1 or more")
    place = pick_device(device)
    model = load_pra(checkpoint, weights).to(place)
    chosen = classes or list(range(model.config.num_classes))
    labels = balanced_labels(num, chosen)
    batches = generate(model, labels, seed=seed, sampler=sampler, batch_size=batch_size, device=place)
    shown = track(batches, description="sampling", total=-(-num // batch_size), console=console, transient=True)
    images = torch.cat(list(shown))
    write_npz(out, SampleSet.from_images(images, torch.tensor(labels), name=out))
    grid = Path(out).with_suffix(".png")
    columns = min(10, len(chosen))
    save_grid(grid, images[: 10 * columns], columns=columns)
    console.print(f"{num} samples in {out}, a grid of them in {grid}")
