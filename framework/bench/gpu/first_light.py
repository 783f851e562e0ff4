"""Does everything run on this device at all: PRA's GPU tests, every strategy for a few steps, asynchronous saves."""

import importlib.util
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset

from framework.bench.gpu.session import Session
from framework.bench.gpu.shapes import PRA_S, TINY, made_batch
from framework.data.loading.batch import ImageBatch
from framework.pra.callbacks import SampleGridConfig
from framework.pra.module import PRAModule
from framework.pra.network.config import PRAConfig
from framework.pra.sampling import SamplerConfig
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.callbacks.finite import FiniteGuard
from framework.training.checkpoint.layout import FOLDER, list_checkpoints
from framework.training.optimizer import OptimizerConfig
from framework.training.strategies.build import make_strategy
from framework.training.strategies.config import PACKAGES, StrategyConfig, StrategyName

STRATEGY_NAMES: tuple[StrategyName, ...] = ("ddp", "fsdp2", "deepspeed")
_TESTS = Path(__file__).parents[3] / "tests"
_TESTED = ("pra", "data/loading", "bench/gpu", "training/test_gpu.py", "gbc/test_gpu.py")
_DISTINCT = 4
"""Batches of different images."""
_SMALL = PRAConfig(image_size=64, patch_size=8, num_classes=10, width=256, depth=4, num_heads=4)


class MadeBatches(Dataset[ImageBatch]):
    """Micro-batches of noise, a few of which come again and again.

    Args:
        config: of the model that they are for.
        size: images of a batch.
        count: batches.
    """

    def __init__(self, config: PRAConfig, size: int, count: int) -> None:
        self.config, self.size, self.count = config, size, count
        self._made: dict[int, ImageBatch] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> ImageBatch:
        if number >= self.count:
            raise IndexError(number)
        # Made once: the numbers of a batch take the host longer than a step of the device.
        distinct = number % _DISTINCT
        if distinct not in self._made:
            self._made[distinct] = made_batch(self.config, self.size, seed=distinct)
        return self._made[distinct]


class MadeData(LightningDataModule):
    """Batches of noise for a trainer, in page-locked memory where there is a GPU."""

    def __init__(self, batches: MadeBatches) -> None:
        super().__init__()
        self.batches = batches

    def train_dataloader(self) -> Iterable[ImageBatch]:
        return DataLoader(self.batches, batch_size=None, pin_memory=torch.cuda.is_available())

    def val_dataloader(self) -> Iterable[ImageBatch]:
        # Lightning warns where there is none; `make_trainer` asks for no batch of it.
        return self.train_dataloader()


def make_trainer(session: Session, folder: Path, strategy: StrategyConfig, **options: object) -> Trainer:
    """A trainer as `framework fit` makes it, on the session's device, without loggers.

    Args:
        session: of the part.
        folder: for the run.
        strategy: as in a recipe.
        **options: of the trainer.
    """
    devices = make_strategy(strategy, accelerator=session.accelerator, devices=1)
    defaults: dict[str, object] = {
        "default_root_dir": folder,
        "accelerator": session.accelerator,
        "devices": 1,
        "strategy": devices,
        "precision": "bf16-mixed",
        "max_epochs": -1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "check_val_every_n_epoch": None,
        "limit_val_batches": 0,
        "use_distributed_sampler": False,
        "gradient_clip_val": 1.0,
    }
    return Trainer(**{**defaults, **options})  # pyright: ignore[reportArgumentType]


def run_tests(session: Session) -> None:
    """Pytest on what is marked `gpu`, in a process of its own: PRA first, then what lies below it, then the agents."""
    if not (_TESTS / "pra").is_dir():
        session.note("pytest", skipped=f"{_TESTS} is not there")
        return
    if importlib.util.find_spec("pytest") is None:
        session.note("pytest", skipped="needs the package pytest")
        return
    # A rehearsal has parts enough of the others.
    tested = _TESTED[:1] if session.rehearse else _TESTED
    places = [str(_TESTS / place) for place in tested if (_TESTS / place).exists()]
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-m", "gpu", "--durations=5", *places]
    if session.rehearse:
        # What compiles needs Triton.
        command += ["-k", "not True"]
    log = session.folder / "pytest.log"
    with log.open("w") as output:
        try:
            code: int | str = subprocess.run(
                command, stdout=output, stderr=output, timeout=session.left(), cwd=_TESTS.parent
            ).returncode
        except subprocess.TimeoutExpired:
            code = "out of time"
    text = log.read_text(errors="replace")
    print(text)
    ended = Counter(re.findall(r"^tests/\S+ (PASSED|FAILED|ERROR|SKIPPED)", text, re.MULTILINE))
    session.note("pytest", code=code, **{word.lower(): count for word, count in ended.items()})


def train_strategies(session: Session) -> None:
    """Three steps, a grid of samples and the averaged weights under each strategy."""
    for name in STRATEGY_NAMES:
        for compiled in (False, True):
            title = f"{name}, {'compiled' if compiled else 'eager'}"
            if name in PACKAGES and importlib.util.find_spec(name) is None:
                session.note(title, skipped=f"needs the package {name}")
            elif compiled and session.compile_backend != "inductor":
                session.note(title, skipped="compiles by Triton, on a GPU only")
            else:
                config = StrategyConfig(name=name, compile=compiled)
                session.attempt(title, partial(_train, session, config), least_seconds=8)


def _train(session: Session, strategy: StrategyConfig) -> dict[str, object]:
    config = TINY if session.rehearse else _SMALL
    module = PRAModule(
        architecture=config,
        optimizer=OptimizerConfig(warmup_steps=1),
        grid=SampleGridConfig(every_n_steps=3, rows=1, sampler=SamplerConfig(steps=3, guidance=2.0)),
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(session, Path(folder), strategy, max_steps=3, callbacks=[FiniteGuard()])
        started = session.now()
        trainer.fit(module, datamodule=MadeData(MadeBatches(config, 4, 3)))
        seconds = session.now() - started
        grids = len(list(Path(folder).glob("samples/*.png")))
    losses = {name: float(value) for name, value in trainer.callback_metrics.items() if name == "loss/total"}
    return {"steps": trainer.global_step, "seconds": seconds, "grids": grids, **losses}


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
