"""Every start of a run and how it ended is noted by the callback."""

from pathlib import Path

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

from framework.core.errors import Preempted
from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_module
from framework.tracking.metric_files import MERGED, merged_steps
from framework.tracking.restarts import FILE, read_restarts
from framework.training.callbacks.restarts import Restarts


class Raises(Callback):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_train_batch_start(self, trainer: object, pl_module: object, batch: object, batch_idx: int) -> None:
        if batch_idx == 2:
            raise self.error


def fit(run_dir: Path, *callbacks: Callback) -> None:
    batches = [tiny_batch(tiny_config(), 2, seed=seed) for seed in range(4)]
    trainer = quiet_trainer(
        run_dir,
        callbacks=[Restarts(), *callbacks],
        logger=CSVLogger(run_dir, name="metrics"),
        log_every_n_steps=1,
        max_epochs=1,
    )
    trainer.fit(tiny_module(), datamodule=Batches(batches))


@pytest.mark.slow
def test_outcomes_of_three_starts(tmp_path: Path):
    with pytest.raises(RuntimeError, match="broken"):
        fit(tmp_path, Raises(RuntimeError("broken\nat https://me:planted-password@host")))
    with pytest.raises(Preempted):
        fit(tmp_path, Raises(Preempted("SIGTERM", hint="start it again")))
    fit(tmp_path)
    found = read_restarts(tmp_path)
    assert [(each.start.restart, each.start.step, each.start.world_size) for each in found] == [
        (0, 0, 1),
        (1, 0, 1),
        (2, 0, 1),
    ]
    ends = [each.end for each in found]
    assert [(end.outcome, end.step) for end in ends if end] == [("failed", 2), ("preempted", 2), ("finished", 4)]
    assert ends[0] is not None
    assert ends[0].message == "RuntimeError: broken at https://<removed>@host"
    assert found[0].start.packages.keys() >= {"torch", "lightning"}
    # The starts' metrics are put together: of steps taken twice the newest.
    assert (tmp_path / MERGED).is_file()
    assert [(row.restart, row.step) for row in merged_steps(tmp_path)] == [(2, step) for step in range(4)]


def test_an_end_that_cannot_be_written_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    class FillsDisk(Callback):
        """The list of starts cannot be appended to any more."""

        def on_train_batch_start(self, trainer: object, pl_module: object, batch: object, batch_idx: int) -> None:
            if batch_idx == 1:
                (tmp_path / FILE).unlink()
                (tmp_path / FILE).mkdir()

    fit(tmp_path, FillsDisk())
    assert "the end of this start could not be noted" in caplog.text
