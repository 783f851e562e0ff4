"""A grid of samples during training: always the same classes and seeds, so that pictures can be compared."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from framework.core.errors import ConfigError
from framework.evaluation.grid import column_headings, save_grid
from framework.pra.generate import balanced_labels, generate
from framework.pra.network.generator import ImageGenerator
from framework.pra.sampling import SamplerConfig
from framework.tracking.wandb_run import TrackedRun
from framework.training.strategies.backend import gathered, is_sharded

FOLDER = "samples"


@dataclass(frozen=True, kw_only=True)
class SampleGridConfig:
    """The grid of samples made during training.

    Args:
        every_n_steps: optimizer steps between grids; 0 makes none.
        classes: classes in the grid, one a column; the first ten of the model by default.
        rows: rows of the grid, each with seeds of its own.
        seed: seed of the grid.
        sampler: how it is sampled.
    """

    every_n_steps: int = 1000
    classes: list[int] | None = None
    rows: int = 4
    seed: int = 0
    sampler: SamplerConfig = field(default_factory=lambda: SamplerConfig(steps=50))

    def __post_init__(self) -> None:
        if self.every_n_steps < 0 or self.rows < 1:
            raise ConfigError(
                f"grid.every_n_steps {self.every_n_steps}, grid.rows {self.rows}", hint="use 0 or more, 1 or more"
            )


class SampleGrid(Callback):
    """Samples with the averaged weights, to `samples/step=NNNNNNNN.png` in the run's folder and to W&B.

    The first process makes the grid; where the weights are sharded all of them take part, and hold the averaged weights
    whole meanwhile.
    """

    def __init__(self, config: SampleGridConfig) -> None:
        self.config = config
        self._made_at = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Makes the grid after every n-th optimizer step, once where several micro-batches make a step."""
        every = self.config.every_n_steps
        if every and trainer.global_step % every == 0 and trainer.global_step != self._made_at:
            self._made_at = trainer.global_step
            self._make(trainer, pl_module)

    def _make(self, trainer: Trainer, pl_module: LightningModule) -> None:
        model = cast(ImageGenerator, pl_module.ema)
        if not trainer.is_global_zero and not is_sharded(model):
            return
        classes = self.config.classes or list(range(min(10, model.config.num_classes)))
        labels = balanced_labels(len(classes) * self.config.rows, classes)
        with trainer.precision_plugin.forward_context(), gathered(model):  # pyright: ignore[reportUnknownMemberType]
            batches = generate(
                model, labels, seed=self.config.seed, sampler=self.config.sampler, device=pl_module.device
            )
            images = torch.cat(list(batches))
        if not trainer.is_global_zero:
            return
        path = Path(trainer.default_root_dir) / FOLDER / f"step={trainer.global_step:08d}.png"
        names = getattr(getattr(trainer, "datamodule", None), "class_names", None)
        known = names if names is not None and len(names) == model.config.num_classes else None
        headings = column_headings(classes, known) if model.config.num_classes > 1 else []
        save_grid(path, images, columns=len(classes), headings=headings)
        for logger in trainer.loggers:
            if isinstance(logger, TrackedRun):
                logger.log_image_file("samples", path, trainer.global_step)
