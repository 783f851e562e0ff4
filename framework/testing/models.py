"""Tiny models, batches and trainers: a training step of these takes milliseconds on one core."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader, Dataset

from framework.data.loading.batch import ImageBatch
from framework.pra.callbacks import SampleGridConfig
from framework.pra.module import PRAModule
from framework.pra.network.build import build_generator
from framework.pra.network.config import PRAConfig
from framework.pra.network.diffusion import PixelDiffusion
from framework.pra.network.generator import ImageGenerator
from framework.pra.network.model import PRA
from framework.training.optimizer import OptimizerConfig
from framework.training.strategies.build import make_strategy
from framework.training.strategies.config import StrategyConfig

_TINY = PRAConfig(
    image_size=4,
    patch_size=2,
    num_classes=3,
    channels=1,
    width=16,
    depth=1,
    num_heads=2,
    class_tokens=2,
    head_width=16,
    head_depth=1,
    state_size=3,
    decoder_width=16,
    decoder_depth=1,
    encoder_width=16,
    encoder_depth=1,
    encoder_heads=2,
)


def tiny_config(**changes: Any) -> PRAConfig:
    """An architecture of four gray pixel tokens and three classes, changed as asked."""
    return replace(_TINY, **changes)


def tiny_model(seed: int = 0, **changes: Any) -> PRA:
    """A model of `tiny_config` whose every parameter is random.

    At initialisation outputs and gates are zero, which would hide whatever lies behind them.
    """
    model = tiny_generator(seed, **changes)
    assert isinstance(model, PRA)
    return model


def tiny_diffusion(seed: int = 0, **changes: Any) -> PixelDiffusion:
    """The same of the variant `diffusion`."""
    model = tiny_generator(seed, variant="diffusion", **changes)
    assert isinstance(model, PixelDiffusion)
    return model


@torch.no_grad()
def tiny_generator(seed: int = 0, **changes: Any) -> ImageGenerator:
    """The same of any variant."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_generator(tiny_config(**changes))
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def tiny_batch(config: PRAConfig, size: int = 4, *, seed: int = 0, epoch: int = 0) -> ImageBatch:
    """Random images in [-1, 1] with random classes, numbered from 0.

    Args:
        config: the model that they are for.
        size: images of the batch.
        seed: of images and classes.
        epoch: that they seem to come from.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (size, config.channels, config.image_size, config.image_size)
    return ImageBatch(
        images=torch.rand(shape, generator=generator) * 2 - 1,
        labels=torch.randint(config.num_classes, (size,), generator=generator),
        indices=torch.arange(size),
        epoch=epoch,
    )


def tiny_module(config: PRAConfig | None = None, **options: Any) -> PRAModule:
    """A module of `tiny_config` that warms up in two steps and makes no grid, changed as asked."""
    options = {
        "architecture": config or tiny_config(),
        "optimizer": OptimizerConfig(learning_rate=1e-3, warmup_steps=2),
        "grid": SampleGridConfig(every_n_steps=0),
        "ema_decay": 0.9,
        **options,
    }
    return PRAModule(**options)


class Batches(LightningDataModule):
    """Batches in memory, or those of an iterable data set."""

    def __init__(self, train: Iterable[object], validation: Sequence[object] = ()) -> None:
        super().__init__()
        self.train, self.validation = train, validation

    def setup(self, stage: str) -> None:
        if not self.validation and self.trainer is not None:
            # Lightning warns about an empty loader.
            self.trainer.limit_val_batches = 0

    def train_dataloader(self) -> DataLoader[object]:
        return _loader(self.train)

    def val_dataloader(self) -> DataLoader[object]:
        return _loader(self.validation)


def _loader(batches: Iterable[object]) -> DataLoader[object]:
    # A list serves as a data set too, whatever torch's type says.
    return DataLoader(cast("Dataset[object]", batches), batch_size=None)


def quiet_trainer(run_dir: Path, **options: Any) -> Trainer:
    """A trainer as the command line makes it, without loggers, progress bar and callbacks of its own."""
    options = {
        "default_root_dir": run_dir,
        "accelerator": "cpu",
        "max_epochs": -1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "check_val_every_n_epoch": None,
        "use_distributed_sampler": False,
        **options,
    }
    if "strategy" not in options:
        options["strategy"] = make_strategy(
            StrategyConfig(), accelerator=options["accelerator"], devices=options.get("devices", "auto")
        )
    return Trainer(**options)
