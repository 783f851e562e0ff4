"""Runs of a tiny model that save checkpoints."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_module
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.checkpoint.layout import FOLDER, list_checkpoints, step_of


def fit(run_dir: Path, checkpoints: Checkpoints, *callbacks: Callback, batches: int, **options: Any) -> Trainer:
    """Trains a tiny PRA model on one epoch of batches.

    Args:
        run_dir: the run's folder.
        checkpoints: saves them.
        callbacks: others.
        batches: in the epoch.
        options: of the trainer; with `val_check_interval` it validates too.
    """
    data = [tiny_batch(tiny_config(), 2, seed=seed) for seed in range(batches)]
    validation = [tiny_batch(tiny_config(), 2, seed=99)] if "val_check_interval" in options else []
    trainer = quiet_trainer(
        run_dir, callbacks=[checkpoints, *callbacks], enable_checkpointing=True, max_epochs=1, **options
    )
    trainer.fit(tiny_module(), datamodule=Batches(data, validation))
    return trainer


def steps_in(run_dir: Path) -> list[int]:
    """Steps of a run's checkpoints, oldest first."""
    return [step_of(path) for path in list_checkpoints(run_dir / FOLDER)]


def newest(run_dir: Path) -> Path:
    """A run's newest checkpoint, damaged or not."""
    return list_checkpoints(run_dir / FOLDER)[-1]
