"""Asynchronous saves, more than one: how long training waits for each, and whether they can be read."""

import tempfile
import time
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from framework.bench.gpu.first_light import MadeBatches, MadeData, make_trainer
from framework.bench.gpu.session import Session
from framework.bench.gpu.shapes import PRA_S, TINY
from framework.pra.callbacks import SampleGridConfig
from framework.pra.module import PRAModule
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.checkpoint.layout import FOLDER, list_checkpoints
from framework.training.strategies.config import StrategyConfig


class SaveClock(Callback):
    """Saves after every step, waits until the save is complete, and times both.

    Args:
        checkpoints: saves.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.stalls: list[float] = []
        self.completed: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        started = time.perf_counter()
        self.checkpoints.save(trainer)
        self.stalls.append(time.perf_counter() - started)
        self.checkpoints.wait()
        self.completed.append(time.perf_counter() - started)


def save_twice(session: Session) -> None:
    """Three asynchronous saves, then a run that goes on from the last."""
    with tempfile.TemporaryDirectory() as folder:
        session.attempt("asynchronous saves", lambda: _save(session, Path(folder), steps=3))
        session.attempt("a run that goes on", lambda: _save(session, Path(folder), steps=4), least_seconds=5)


def _save(session: Session, folder: Path, *, steps: int) -> dict[str, object]:
    config = TINY if session.rehearse else PRA_S
    # Saves are asked for by the clock, which is called first.
    checkpoints = Checkpoints(every_n_steps=1_000_000, keep_last=1)
    clock = SaveClock(checkpoints)
    trainer = make_trainer(
        session,
        folder,
        StrategyConfig(),
        max_steps=steps,
        callbacks=[clock, checkpoints],
        enable_checkpointing=True,
    )
    module = PRAModule(architecture=config, grid=SampleGridConfig(every_n_steps=0))
    started = time.perf_counter()
    ckpt_path = folder if list_checkpoints(folder / FOLDER) else None
    trainer.fit(module, datamodule=MadeData(MadeBatches(config, 2, steps)), ckpt_path=ckpt_path, weights_only=True)
    newest = list_checkpoints(folder / FOLDER)[-1]
    size = sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())
    return {
        "stalls_s": clock.stalls,
        "complete_after_s": clock.completed,
        "gib": size / 2**30,
        "seconds": time.perf_counter() - started,
    }
