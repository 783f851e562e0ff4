"""A killed and resumed run equals an uninterrupted one, bit by bit."""

import os
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger

from framework.core.errors import Preempted
from framework.data.images.transforms import ImageConfig
from framework.data.loading.batch import ImageBatch
from framework.data.loading.loader import LoadingConfig
from framework.data.module import ShardDataModule
from framework.testing.faults import truncate
from framework.testing.images import make_image_shards
from framework.testing.models import quiet_trainer, tiny_config, tiny_module
from framework.testing.processes.forked import Forked, start_command
from framework.tracking.metric_files import read_metrics
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.callbacks.finite import FiniteGuard
from framework.training.callbacks.preemption import Preemption
from framework.training.callbacks.random_state import RandomState
from framework.training.callbacks.throughput import Throughput
from framework.training.checkpoint.layout import FOLDER, list_checkpoints, name_of, step_of
from framework.training.checkpoint.read import read_state, read_tensors
from framework.training.strategies.build import make_strategy
from framework.training.strategies.config import StrategyConfig

CLASSES, SAMPLES, BATCH, STEPS = ("a", "b", "c"), 24, 4, 9
MEASURED = ("time/", "throughput/", "memory/", "checkpoint/")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """24 images: six batches of four make an epoch."""
    path = tmp_path_factory.mktemp("resume")
    make_image_shards(path, classes=CLASSES, per_class=SAMPLES // 3, size=(6, 5), samples_per_shard=7)
    return str(path / "shards")


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Where two checkpoints differ; tensors are compared bit by bit."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = sorted(ours.keys() | theirs.keys(), key=str)
        return [d for key in keys for d in differences(ours.get(key), theirs.get(key), f"{path}/{key}")]
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [d for number, (a, b) in pairs for d in differences(a, b, f"{path}/{number}")]
    if isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor):
        same = ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    else:
        same = type(ours) is type(theirs) and ours == theirs
    return [] if same else [f"{path}: {ours!r:.80} and {theirs!r:.80}"]


def test_differences_are_found():
    one = {"a": [torch.ones(2), 3], "b": None}
    assert differences(one, {"a": [torch.ones(2), 3], "b": None}) == []
    assert differences(one, {"a": [torch.tensor([1, 1 + 1e-7]), 3]})[0].startswith("/a/0: tensor")
    assert differences(one, {"a": [torch.ones(2), 3.0], "b": None}) == ["/a/1: 3 and 3.0"]
    assert differences(one, {"a": [torch.ones(2), 3], "b": None, "c": 1}) == ["/c: None and 1"]


# In one process.


class Killed(BaseException):
    """Stands for a signal: nothing but the clean-up of the interpreter runs after it."""


@dataclass
class Watch(Callback):
    """Notes what each batch was made of, draws from the global generators, and ends the run before a micro-batch."""

    kill_at: int | None = None
    seen: list[tuple] = field(default_factory=list)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: ImageBatch, batch_idx: int
    ) -> None:
        if self.kill_at is not None and len(self.seen) == self.kill_at:
            raise Killed
        self.drawn = (np.random.rand(), torch.rand(()).item())  # noqa: NPY002

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ImageBatch, batch_idx: int
    ) -> None:
        loss = outputs["loss"].item()
        self.seen.append((trainer.global_step, batch.epoch, tuple(batch.indices.tolist()), loss, *self.drawn))


def fit(
    run_dir: Path,
    shards: str,
    *,
    seed: int,
    kill_at: int | None = None,
    accumulate: int = 1,
    workers: int = 0,
    steps: int = STEPS,
    every: int = 1,
    callback: Callback | None = None,
    source: Path | None = None,
) -> list[tuple]:
    """Train, from the newest checkpoint if there is one, with what `framework fit` puts together."""
    seed_everything(seed, verbose=False)
    # What the global generators hold must not matter after a resume.
    random.random()
    watch = Watch(kill_at)
    strategy = make_strategy(StrategyConfig(), accelerator="cpu", devices=1)
    strategy.start_anew = True  # type: ignore[attr-defined]
    trainer = quiet_trainer(
        run_dir,
        max_steps=steps,
        strategy=strategy,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=1.0,
        log_every_n_steps=1,
        val_check_interval=2,
        logger=CSVLogger(run_dir, name="metrics", flush_logs_every_n_steps=1),
        enable_checkpointing=True,
        callbacks=[
            Throughput("image"),
            FiniteGuard(),
            RandomState(),
            watch,
            *([callback] if callback else []),
            Checkpoints(every_n_steps=every, keep_last=100),
        ],
    )
    data = ShardDataModule(
        train=shards,
        validation=shards,
        images=ImageConfig(size=4, channels=1, crop="random", flip=True),
        batch_size=BATCH,
        loading=LoadingConfig(num_workers=workers),
        validation_samples=5,
    )
    torch.manual_seed(0)
    module = tiny_module(tiny_config())
    try:
        trainer.fit(module, datamodule=data, ckpt_path=source or run_dir, weights_only=True)
    except Killed:
        assert kill_at is not None or callback is not None
    return watch.seen


def at_step(run_dir: Path, step: int) -> dict[str, Any]:
    """A checkpoint's tensors and state, without Lightning's own book-keeping."""
    checkpoint = run_dir / FOLDER / name_of(step)
    content = read_state(checkpoint)
    assert content["global_step"] == step
    assert content["ShardDataModule"]["samples_consumed"] > 0
    # The run-time checks of the annotations draw from Python's generator.
    [random_state] = [state for name, state in content["callbacks"].items() if name.startswith("RandomState")]
    del random_state["ranks"][0]["python"], content["loops"]
    tensors = read_tensors(checkpoint, "")
    assert {name.partition(".")[0] for name in tensors} == {"model", "ema", "optimizers"}
    return {**content, "tensors": tensors}


@pytest.fixture(scope="module")
def uninterrupted(shards: str, tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Path, list[tuple]]]:
    """Run folder and batches seen, by the number of accumulated batches."""
    runs = {}
    for accumulate in (1, 2):
        folder = tmp_path_factory.mktemp(f"accumulate_{accumulate}")
        runs[accumulate] = folder, fit(folder, shards, seed=0, accumulate=accumulate)
    return runs


# Micro-batches finished before the end: six make an epoch, and every step of accumulated ones leaves a checkpoint.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("accumulate", "kill_at", "resumed_step", "workers"),
    [
        pytest.param(1, 4, 4, 0, id="in mid-epoch"),
        pytest.param(1, 6, 6, 0, id="at the border of an epoch"),
        pytest.param(1, 7, 7, 2, id="in the second epoch, with workers"),
        pytest.param(2, 5, 2, 0, id="between two accumulated batches"),
        pytest.param(2, 6, 3, 0, id="accumulated, at the border of an epoch"),
        pytest.param(2, 8, 4, 2, id="accumulated, in the second epoch, with workers"),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    shards: str, uninterrupted, tmp_path: Path, accumulate: int, kill_at: int, resumed_step: int, workers: int
):
    whole_dir, whole = uninterrupted[accumulate]
    before = fit(tmp_path, shards, seed=0, kill_at=kill_at, accumulate=accumulate, workers=workers)
    assert len(before) == kill_at
    assert step_of(list_checkpoints(tmp_path / FOLDER)[-1]) == resumed_step
    after = fit(tmp_path, shards, seed=1, accumulate=accumulate, workers=workers)
    finished = resumed_step * accumulate
    assert before == whole[:kill_at]
    assert after == whole[finished:], "steps, epochs, samples, losses and random numbers"
    assert differences(at_step(tmp_path, STEPS), at_step(whole_dir, STEPS)) == []
    ours, theirs = read_metrics(tmp_path), read_metrics(whole_dir)
    for name in theirs:
        if name.startswith("loss/") or name.startswith("optimizer/"):
            assert ours[name] == theirs[name], name
        if name.startswith("validation/"):
            assert ours[name] == theirs[name], name


class KilledInValidation(Callback):
    """Ends the run in the middle of a validation."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise Killed


class StoppedInValidation(Preemption):
    """Gets a signal there, upon which the run saves itself."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGUSR1)


# Every second step is validated. In mid-epoch, at the border of an epoch, and after the run's last step.
@pytest.mark.slow
@pytest.mark.parametrize("killed", [True, False])
@pytest.mark.parametrize(
    ("accumulate", "step", "last"), [(1, 4, STEPS), (1, 6, STEPS), (2, 3, STEPS), (1, 8, 8)], ids=str
)
def test_a_validation_that_was_cut_off_is_made_up_for(
    shards: str,
    uninterrupted,
    tmp_path: Path,
    accumulate: int,
    step: int,
    last: int,
    killed: bool,
):
    whole_dir, whole = uninterrupted[accumulate]
    given = {"accumulate": accumulate, "steps": last}
    if killed:
        fit(tmp_path, shards, seed=0, callback=KilledInValidation(step), **given)
    else:
        with pytest.raises(Preempted, match=f"SIGUSR1 at step {step}, with everything saved"):
            fit(tmp_path, shards, seed=0, callback=StoppedInValidation(step), every=100, **given)
        assert [step_of(path) for path in list_checkpoints(tmp_path / FOLDER)] == [step]
    at = step - 1
    assert at not in read_metrics(tmp_path)["validation/total"]
    assert (
        fit(tmp_path, shards, seed=1, accumulate=accumulate, steps=last) == whole[step * accumulate : last * accumulate]
    )
    ours, theirs = read_metrics(tmp_path), read_metrics(whole_dir)
    for name in theirs:
        if name.startswith("validation/"):
            assert ours[name] == {place: value for place, value in theirs[name].items() if place < last}, name
    if last == STEPS:
        assert differences(at_step(tmp_path, STEPS), at_step(whole_dir, STEPS)) == []


@pytest.mark.slow
def test_a_validation_that_came_to_its_end_is_not_repeated(shards: str, tmp_path: Path):
    class Counts(Callback):
        def __init__(self) -> None:
            self.steps: list[int] = []

        def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            self.steps.append(trainer.global_step)

    fit(tmp_path, shards, seed=0, kill_at=4)
    again, finished = Counts(), Counts()
    fit(tmp_path, shards, seed=1, steps=6, callback=again)
    assert again.steps == [6]
    fit(tmp_path, shards, seed=1, steps=6, callback=finished)
    assert finished.steps == []
    # A run that starts from there, in a folder of its own, does not repeat it either.
    other = Counts()
    fit(tmp_path / "other", shards, seed=1, steps=7, callback=other, source=tmp_path)
    assert other.steps == []


@pytest.mark.slow
def test_more_than_one_interruption(shards: str, uninterrupted, tmp_path: Path):
    whole_dir, whole = uninterrupted[1]
    for seed, kill_at in enumerate((2, 1, 3)):
        fit(tmp_path, shards, seed=seed, kill_at=kill_at)
    assert fit(tmp_path, shards, seed=5) == whole[6:]
    assert differences(at_step(tmp_path, STEPS), at_step(whole_dir, STEPS)) == []


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over(shards: str, uninterrupted, tmp_path: Path):
    whole_dir, whole = uninterrupted[1]
    fit(tmp_path, shards, seed=0, kill_at=5)
    truncate(tmp_path / FOLDER / name_of(5) / "__0_0.distcp")
    assert fit(tmp_path, shards, seed=1) == whole[4:]
    assert differences(at_step(tmp_path, STEPS), at_step(whole_dir, STEPS)) == []


@pytest.mark.slow
def test_a_finished_run_stays_as_it_is(shards: str, tmp_path: Path):
    fit(tmp_path, shards, seed=0, steps=3)
    before = {path.name: (path / "manifest.json").read_text() for path in list_checkpoints(tmp_path / FOLDER)}
    assert fit(tmp_path, shards, seed=0, steps=3) == []
    after = {path.name: (path / "manifest.json").read_text() for path in list_checkpoints(tmp_path / FOLDER)}
    assert after == before


@pytest.mark.slow
def test_a_longer_run_goes_on_from_the_end_of_a_shorter_one(shards: str, uninterrupted, tmp_path: Path):
    _, whole = uninterrupted[1]
    assert fit(tmp_path, shards, seed=0, steps=6) == whole[:6]
    assert fit(tmp_path, shards, seed=1) == whole[6:]


# Through the command line, in processes of its own.

KILL_AFTER, LAST = 20, 80


def write_recipe(path: Path, shards: str) -> None:
    recipe = {
        "seed_everything": 0,
        "run": {"dir": "unset", "wandb": "disabled"},
        "data": {
            "train": shards, "validation": shards, "batch_size": BATCH,
            "images": {"size": 4, "channels": 1, "crop": "random", "flip": True}, "loading": {"num_workers": 2},
        },
        "model": {
            "class_path": "framework.pra.module.PRAModule",
            "init_args": {
                "architecture": vars(tiny_config()),
                "optimizer": {"warmup_steps": 30, "schedule": "cosine"},
                "grid": {"every_n_steps": 0},
                "ema_decay": 0.9,
            },
        },
        "trainer": {
            "accelerator": "cpu", "max_steps": LAST, "accumulate_grad_batches": 2, "gradient_clip_val": 1.0,
            "log_every_n_steps": 1, "val_check_interval": 7, "enable_progress_bar": False,
            "enable_model_summary": False,
        },
        "checkpoint": {"every_n_steps": KILL_AFTER, "keep_last": 10},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(recipe))


def start(recipe: Path, run_dir: Path, *options: str) -> Forked:
    return start_command("fit", "--config", str(recipe), "--run.dir", str(run_dir), *options)


def finish(command: Forked) -> str:
    ended = command.finish()
    assert ended.exitcodes == [0], ended.output
    return ended.output


def kill_after(command: Forked, run_dir: Path, step: int) -> None:
    """SIGKILL to the process and its workers, once the checkpoint and the metrics of a step are there."""
    deadline = time.monotonic() + 120
    checkpoint = run_dir / FOLDER / name_of(step)
    while command.exitcodes() == [None] and time.monotonic() < deadline:
        time.sleep(0.002)
        if checkpoint.exists() and step in read_metrics(run_dir)["loss/total"]:
            break
    os.killpg(command.pids[0], signal.SIGKILL)
    ended = command.finish(timeout=60)
    assert ended.exitcodes == [-signal.SIGKILL], "it was still running"


@pytest.mark.slow
def test_a_killed_command_goes_on_as_if_it_had_not_been(shards: str, tmp_path: Path):
    recipe, whole_dir, run_dir = tmp_path / "recipe.yaml", tmp_path / "whole", tmp_path / "run"
    write_recipe(recipe, shards)
    whole = start(recipe, whole_dir)
    # Forty micro-batches of an epoch of six: in its middle, at the end of an accumulated pair.
    kill_after(start(recipe, run_dir), run_dir, KILL_AFTER)
    before = read_metrics(run_dir)["loss/total"]
    errors = finish(start(recipe, run_dir, "--resume", "auto"))
    assert "resuming from" in errors
    assert f"step {LAST}; recipe, checkpoints, metrics and curves are there" in errors
    finish(whole)

    assert [step_of(path) for path in list_checkpoints(run_dir / FOLDER)][-1] == LAST
    assert differences(at_step(run_dir, LAST), at_step(whole_dir, LAST)) == []
    ours, theirs = read_metrics(run_dir), read_metrics(whole_dir)
    assert list(before) == list(range(len(before)))
    assert KILL_AFTER < len(before) < LAST
    assert all(theirs["loss/total"][step] == value for step, value in before.items())
    names = [name for name in theirs if not name.startswith(("validation/", *MEASURED))]
    assert "optimizer/gradient_norm" in names
    for name in names:
        assert ours[name] == theirs[name], name
    assert list(theirs["loss/total"]) == list(range(LAST))
    for name in theirs:
        if name.startswith("validation/"):
            assert all(theirs[name][step] == value for step, value in ours[name].items())
    assert (run_dir / "recipe.yaml").is_file()
    assert (run_dir / "curves.png").is_file()
