"""Curves are there when a run ends, and when it breaks."""

from pathlib import Path

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_module
from framework.tracking.metric_files import read_metrics
from framework.training.callbacks.curves import Curves


class Breaks(Callback):
    def on_train_batch_start(self, trainer: object, pl_module: object, batch: object, batch_idx: int) -> None:
        if batch_idx == 3:
            raise RuntimeError("broken")


def fit(run_dir: Path, *callbacks: Callback) -> None:
    batches = [tiny_batch(tiny_config(), 2, seed=seed) for seed in range(5)]
    trainer = quiet_trainer(
        run_dir,
        callbacks=[Curves(), *callbacks],
        logger=CSVLogger(run_dir, name="metrics"),
        log_every_n_steps=1,
        max_epochs=1,
    )
    trainer.fit(tiny_module(), datamodule=Batches(batches))


@pytest.mark.slow
def test_at_the_end_of_a_run(tmp_path: Path):
    fit(tmp_path)
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width > 100
    assert list(read_metrics(tmp_path)["loss/total"]) == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_when_a_run_breaks(tmp_path: Path):
    with pytest.raises(RuntimeError, match="broken"):
        fit(tmp_path, Breaks())
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width > 100
    assert list(read_metrics(tmp_path)["loss/total"]) == [0, 1, 2]
