"""Kills, full disks and the like: what is left is the last complete checkpoint, and the run goes on from it."""

import os
import random
import resource
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from framework.data.images.transforms import ImageConfig
from framework.data.loading.batch import ImageBatch
from framework.data.module import ShardDataModule
from framework.testing.checkpoints import steps_in
from framework.testing.faults import flip_bytes, kill_at_event
from framework.testing.images import make_image_shards
from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_module
from framework.testing.processes.forked import Forked, run_forked
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.callbacks.random_state import RandomState
from framework.training.checkpoint.choose import newest_undamaged
from framework.training.checkpoint.layout import FOLDER, Manifest, name_of, step_of
from framework.training.checkpoint.read import find_checkpoint, read_state, read_tensors
from framework.training.strategies.build import make_strategy
from framework.training.strategies.config import StrategyConfig

# Two processes.


class KillWhileWriting(Callback):
    """SIGKILL to one rank when it opens its file of a step's checkpoint."""

    def __init__(self, rank: int, step: int) -> None:
        self.rank, self.step = rank, step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_rank == self.rank:
            kill_at_event(1, str(Path(trainer.default_root_dir, FOLDER, f"{name_of(self.step)}.partial", "__")))


def train_two(run_dir: str, strategy: str, kill_rank: int | None) -> list[float]:
    processes = int(os.environ["WORLD_SIZE"])
    losses: list[float] = []

    class Losses(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
            losses.append(outputs["loss"].item())

    callbacks: list[Callback] = [Losses(), Checkpoints(every_n_steps=2, keep_last=5)]
    if kill_rank is not None:
        callbacks.append(KillWhileWriting(kill_rank, 4))
    chosen = make_strategy(StrategyConfig(name=strategy), accelerator="cpu", devices=processes)  # type: ignore[arg-type]
    chosen.start_anew = True  # type: ignore[attr-defined]
    trainer = quiet_trainer(
        Path(run_dir), strategy=chosen, devices=processes, max_steps=8, callbacks=callbacks, enable_checkpointing=True
    )
    data = [tiny_batch(tiny_config(), 2, seed=seed) for seed in range(8)]
    trainer.fit(tiny_module(), datamodule=Batches(data), ckpt_path=run_dir)
    return losses


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "kill_rank"), [("ddp", 1), ("fsdp2", 0)])
def test_a_rank_killed_in_the_middle_of_a_save(tmp_path: Path, strategy: str, kill_rank: int):
    run = run_forked(train_two, 2, run_dir=str(tmp_path), strategy=strategy, kill_rank=kill_rank, may_fail=True)
    assert run.exitcodes[kill_rank] == -9
    assert run.exitcodes[1 - kill_rank] == 1, "the other rank ends by itself, with an error"
    assert (tmp_path / FOLDER / "step=00000004.partial").is_dir()
    assert steps_in(tmp_path) == [2]
    assert newest_undamaged(tmp_path).skipped == []
    rest = run_forked(train_two, 2, run_dir=str(tmp_path), strategy=strategy, kill_rank=None)
    assert len(rest.results[0]) == 6
    assert steps_in(tmp_path) == [2, 4, 6, 8]
    assert not list((tmp_path / FOLDER).glob("*.partial"))


# Damage to files of several ranks.


@pytest.mark.slow
def test_ranks_agree_on_what_is_damaged(tmp_path: Path):
    run_forked(train_two, 2, run_dir=str(tmp_path), strategy="fsdp2", kill_rank=None)
    six, eight = (tmp_path / FOLDER / name_of(step) for step in (6, 8))
    assert {"__0_0.distcp", "__1_0.distcp"} <= Manifest.read(eight).files.keys()
    (eight / "__1_0.distcp").unlink()
    flip_bytes(six / "__1_0.distcp")
    again = run_forked(train_two, 2, run_dir=str(tmp_path), strategy="ddp", kill_rank=None)
    assert [len(again.results[rank]) for rank in range(2)] == [4, 4], "both went on from step 4"
    assert f"skipped {eight}: __1_0.distcp is missing" in again.output
    assert f"skipped {six}: __1_0.distcp does not match its checksum" in again.output
    assert steps_in(tmp_path) == [2, 4, 6, 8]
    assert {path.name for path in (tmp_path / FOLDER).glob("*.damaged")} == {
        f"{six.name}.damaged",
        f"{eight.name}.damaged",
    }


# The disk.


def train_on_a_full_disk(run_dir: str, asynchronous: bool) -> list[Any]:
    """Trains until it fails; from step 3 on no file grows past 100 kB. Returns the error, its class, and the step."""

    class Full(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == 3:
                checkpoints.wait()
                resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    checkpoints = Checkpoints(every_n_steps=2, asynchronous=asynchronous)
    data = [tiny_batch(tiny_config(), 2, seed=seed) for seed in range(100)]
    trainer = quiet_trainer(Path(run_dir), max_steps=100, callbacks=[Full(), checkpoints], enable_checkpointing=True)
    try:
        trainer.fit(tiny_module(), datamodule=Batches(data))
    except Exception as error:
        return [str(error), type(error).__name__, trainer.global_step]
    return []


@pytest.mark.slow
@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_full_disk(tmp_path: Path, asynchronous: bool):
    run = run_forked(train_on_a_full_disk, 1, run_dir=str(tmp_path), asynchronous=asynchronous)
    message, kind, step = run.results[0]
    assert kind == "CheckpointError"
    assert "step=00000004 could not be saved" in message
    assert "File too large" in message
    assert step == 4 if not asynchronous else 4 <= step < 100
    assert {path.name for path in (tmp_path / FOLDER).iterdir()} == {"newest", name_of(2)}
    assert newest_undamaged(tmp_path).skipped == []


def train_where_nothing_can_be_written(run_dir: str) -> list[str]:
    user = os.geteuid()
    if user == 0:
        # Nothing is read-only to root.
        os.seteuid(65534)
    data = [tiny_batch(tiny_config(), 2)] * 3
    trainer = quiet_trainer(
        Path(run_dir), max_steps=3, callbacks=[Checkpoints(every_n_steps=1)], enable_checkpointing=True
    )
    try:
        trainer.fit(tiny_module(), datamodule=Batches(data))
    except Exception as error:
        return [str(error), type(error).__name__]
    finally:
        os.seteuid(user)
    return []


@pytest.mark.slow
def test_a_read_only_folder():
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / FOLDER).mkdir()
        (folder / FOLDER).chmod(0o555)
        folder.chmod(0o777)
        run = run_forked(train_where_nothing_can_be_written, 1, run_dir=str(folder))
        message, kind = run.results[0]
        assert kind == "CheckpointError"
        assert f"{folder}/checkpoints/step=00000001" in message
        assert "Permission denied" in message
        folder.chmod(0o555)
        run = run_forked(train_where_nothing_can_be_written, 1, run_dir=str(folder / "run"))
        assert "the run's folder cannot be used" in run.results[0][0]
    finally:
        folder.chmod(0o777)
        shutil.rmtree(folder)


# Two jobs.


def hold(run_dir: str, seconds: float) -> list[str]:
    """Trains one batch that takes its time."""

    class Slow(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            Path(run_dir, "started").touch()
            time.sleep(seconds)

    data = [tiny_batch(tiny_config(), 2)]
    callbacks = [Slow(), Checkpoints(every_n_steps=1)]
    trainer = quiet_trainer(Path(run_dir), max_steps=1, callbacks=callbacks, enable_checkpointing=True)
    try:
        trainer.fit(tiny_module(), datamodule=Batches(data))
    except Exception as error:
        return [str(error), type(error).__name__]
    return []


@pytest.mark.slow
def test_two_jobs_on_one_folder(tmp_path: Path):
    first = Forked(hold, 1, {"run_dir": str(tmp_path), "seconds": 60}, may_fail=True)
    while not (tmp_path / "started").exists():
        assert first.exitcodes() == [None]
        time.sleep(0.01)
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "step=00000001.partial").mkdir()
    message, kind = run_forked(hold, 1, run_dir=str(tmp_path), seconds=0).results[0]
    assert kind == "CheckpointError"
    assert f"another job is training in {tmp_path} (process {first.pids[0]} on " in message
    assert (tmp_path / FOLDER / "step=00000001.partial").is_dir(), "nothing of the first was touched"
    os.kill(first.pids[0], signal.SIGKILL)
    assert first.finish().exitcodes == [-9]
    assert run_forked(hold, 1, run_dir=str(tmp_path), seconds=0).results[0] == []
    assert steps_in(tmp_path) == [1]


# Thirty kills.

STEPS, KILLS = 300, 30


class Walk(LightningModule):
    """A step of a few operations that depends on the images, the random numbers and the weights before it."""

    def __init__(self) -> None:
        super().__init__()
        self.model = torch.nn.Linear(16, 4)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        noise = torch.randn(len(batch), 16)
        return self.model(batch.images.flatten(1) + noise).square().mean()

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def walk(run_dir: str, shards: str, kill_at: list[float] | None) -> None:
    """Trains to the end, or is killed so many steps and seconds after its start; ten steps after it at the latest."""

    class Kill(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            self.first = trainer.global_step

        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            if kill_at is None:
                return
            steps, seconds = kill_at
            done = trainer.global_step - self.first
            if done == steps:
                threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
            if done == 10:
                os.kill(os.getpid(), signal.SIGKILL)

    seed_everything(3, verbose=False)
    checkpoints = Checkpoints(every_n_steps=3, keep_last=2, keep_every_n_steps=99)
    strategy = make_strategy(StrategyConfig(), accelerator="cpu", devices=1)
    strategy.start_anew = True  # type: ignore[attr-defined]
    trainer = quiet_trainer(
        Path(run_dir),
        max_steps=STEPS,
        strategy=strategy,
        callbacks=[RandomState(), Kill(), checkpoints],
        enable_checkpointing=True,
    )
    data = ShardDataModule(train=shards, images=ImageConfig(size=4, channels=1), batch_size=4)
    trainer.fit(Walk(), datamodule=data, ckpt_path=run_dir)


@pytest.mark.slow
def test_thirty_kills_end_in_the_same_weights(tmp_path: Path):
    make_image_shards(tmp_path, classes=("a", "b", "c"), per_class=16, size=(6, 5), samples_per_shard=7)
    shards, run_dir, whole_dir = str(tmp_path / "shards"), tmp_path / "run", tmp_path / "whole"
    whole = Forked(walk, 1, {"run_dir": str(whole_dir), "shards": shards, "kill_at": None})
    moments, reached, kills = random.Random(5), [], 0
    while kills < KILLS:
        kill_at = [moments.randint(0, 9), moments.uniform(0, 0.03)]
        run = run_forked(walk, 1, run_dir=str(run_dir), shards=shards, kill_at=kill_at, may_fail=True)
        assert run.exitcodes == [-9], f"{run.exitcodes} after {kills} kills: {run.output}"
        kills += 1
        reached.append(max(steps_in(run_dir), default=0))
    run_forked(walk, 1, run_dir=str(run_dir), shards=shards, kill_at=None)
    whole.finish()
    assert reached == sorted(reached), "never back behind a checkpoint"
    assert len(set(reached)) > KILLS / 3
    ours, theirs = find_checkpoint(run_dir), find_checkpoint(whole_dir)
    assert step_of(ours) == step_of(theirs) == STEPS
    for prefix in ("model.", "optimizers."):
        mine, others = read_tensors(ours, prefix), read_tensors(theirs, prefix)
        assert len(mine) >= 2
        assert all(torch.equal(mine[name], others[name]) for name in others)
    mine, others = read_state(ours), read_state(theirs)
    assert mine["ShardDataModule"] == others["ShardDataModule"]
    assert mine["lr_schedulers"] == others["lr_schedulers"]
    assert steps_in(run_dir) == steps_in(whole_dir)
