"""A run goes on from its checkpoints: on the same processes bit by bit, on others with the same samples and losses."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from framework.data.images.transforms import ImageConfig
from framework.data.loading.batch import ImageBatch
from framework.data.module import ShardDataModule
from framework.testing.images import make_image_shards
from framework.testing.models import quiet_trainer, tiny_config, tiny_module
from framework.testing.processes.forked import run_forked
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.callbacks.random_state import RandomState
from framework.training.checkpoint.layout import FOLDER, list_checkpoints
from framework.training.checkpoint.read import find_checkpoint, read_tensors
from framework.training.strategies.build import make_strategy
from framework.training.strategies.config import DeepSpeedOptions, FSDP2Options, StrategyConfig

HALF, GLOBAL_BATCH, MICRO_BATCH = 4, 8, 2


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """48 images: six global batches of eight make an epoch, so that 2 * HALF steps end in the second one."""
    path = tmp_path_factory.mktemp("elastic")
    make_image_shards(path, classes=("a", "b", "c"), per_class=16, size=(6, 5), samples_per_shard=7)
    return str(path / "shards")


class Watch(Callback):
    """Notes each step's samples, loss and random numbers; kills the process before a step."""

    def __init__(self, kill_before: int | None) -> None:
        self.kill_before = kill_before
        self.samples: list[list[int]] = []
        self.losses: list[float] = []
        self.drawn: list[list[float]] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: ImageBatch, batch_idx: int
    ) -> None:
        if self.kill_before is not None and trainer.global_step == self.kill_before:
            while not list_checkpoints(Path(trainer.default_root_dir, FOLDER)):
                time.sleep(0.01)  # It is written in the background.
            os.kill(os.getpid(), signal.SIGKILL)
        self.drawn.append([np.random.rand(), torch.rand(()).item()])  # noqa: NPY002
        self.samples.append(batch.indices.tolist())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ImageBatch, batch_idx: int
    ) -> None:
        self.losses.append(outputs["loss"].item())


def strategy_of(name: str, processes: int) -> Any:
    kind, _, stage = name.partition("-")
    if kind == "zero":
        from framework.testing.processes.deepspeed_cpu import CPUDeepSpeedStrategy

        options = DeepSpeedOptions(stage=int(stage))  # type: ignore[arg-type]
        return CPUDeepSpeedStrategy(StrategyConfig(name="deepspeed", deepspeed=options))
    options: dict[str, Any] = {"name": kind}
    if stage:
        options["fsdp2"] = FSDP2Options(replicate=int(stage))
    return make_strategy(StrategyConfig(**options), accelerator="cpu", devices=processes)


def train(run_dir: str, shards: str, strategy: str, steps: int, kill_before: int | None = None) -> dict[str, Any]:
    """One rank's part of a training, from the newest checkpoint if there is one."""
    torch.set_num_threads(1)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    # What the global generators hold must not matter after a resume.
    seed_everything(7 if not Path(run_dir).exists() else 8, verbose=False)
    watch = Watch(kill_before)
    chosen = strategy_of(strategy, processes)
    chosen.start_anew = True
    trainer = quiet_trainer(
        Path(run_dir),
        strategy=chosen,
        devices=processes,
        max_steps=steps,
        gradient_clip_val=1.0,
        callbacks=[RandomState(), watch, Checkpoints(every_n_steps=HALF, keep_last=10)],
        enable_checkpointing=True,
    )
    data = ShardDataModule(
        train=shards, images=ImageConfig(size=4, channels=1), batch_size=MICRO_BATCH, global_batch=GLOBAL_BATCH
    )
    trainer.fit(tiny_module(tiny_config()), datamodule=data, ckpt_path=run_dir)
    return {"samples": watch.samples, "losses": watch.losses, "drawn": watch.drawn}


def merged(results: dict[int, Any], name: str) -> list[Any]:
    """What the ranks saw, by micro-batch."""
    return [list(each) for each in zip(*(results[rank][name] for rank in sorted(results)), strict=True)]


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return {p + k: v for p in ("model.", "ema.") for k, v in read_tensors(find_checkpoint(run_dir), p).items()}


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    assert ours.keys() == theirs.keys()
    assert len(ours) > 50
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2", "zero-1", "zero-2", "zero-3"])
def test_killed_and_resumed_on_the_same_processes(shards: str, tmp_path: Path, strategy: str):
    if strategy.startswith("zero"):
        pytest.importorskip("deepspeed")
    options: dict[str, Any] = {"shards": shards, "strategy": strategy, "steps": 2 * HALF}
    whole = run_forked(train, 2, run_dir=str(tmp_path / "whole"), **options)
    killed = run_forked(train, 2, run_dir=str(tmp_path / "run"), kill_before=HALF + 2, may_fail=True, **options)
    assert -9 in killed.exitcodes
    rest = run_forked(train, 2, run_dir=str(tmp_path / "run"), **options)
    for name in ("samples", "losses", "drawn"):
        for rank in range(2):
            assert rest.results[rank][name] == whole.results[rank][name][2 * HALF :], name
    assert same(weights(tmp_path / "run"), weights(tmp_path / "whole"))


def by_step(runs: list[tuple[int, dict[int, Any]]]) -> tuple[list[set[int]], list[float]]:
    """The samples of each global batch, and its mean loss, of runs with their numbers of processes."""
    samples: list[set[int]] = []
    losses: list[float] = []
    for processes, results in runs:
        micro = GLOBAL_BATCH // MICRO_BATCH // processes
        count = len(results[0]["losses"])
        for first in range(0, count, micro):
            seen = [results[rank]["samples"][i] for rank in results for i in range(first, first + micro)]
            found = [results[rank]["losses"][i] for rank in results for i in range(first, first + micro)]
            samples.append({number for each in seen for number in each})
            # The trainer has divided each by the number of those accumulated.
            losses.append(sum(found) / processes)
    return samples, losses


CHAIN = [("ddp", 2, 2), ("fsdp2", 4, 4), ("ddp", 1, 6), ("fsdp2", 2, 8), ("fsdp2-2", 4, 10)]
"""Strategy (with the number of replicas), processes, and the step to go to."""


@pytest.mark.slow
def test_other_processes_and_strategies_go_on_with_the_same_curve(shards: str, tmp_path: Path):
    last = CHAIN[-1][2]
    whole = run_forked(train, 1, run_dir=str(tmp_path / "whole"), shards=shards, strategy="ddp", steps=last)
    runs = []
    for strategy, processes, steps in CHAIN:
        run = run_forked(train, processes, run_dir=str(tmp_path / "run"), shards=shards, strategy=strategy, steps=steps)
        runs.append((processes, run.results))
    ours, theirs = by_step(runs), by_step([(1, whole.results)])
    assert ours[0] == theirs[0]
    assert all(len(batch) == GLOBAL_BATCH for batch in ours[0])
    assert ours[1] == pytest.approx(theirs[1], abs=1e-4)
    for prefix in ("model.", "ema.", "optimizers."):
        mine, others = (read_tensors(find_checkpoint(tmp_path / name), prefix) for name in ("run", "whole"))
        assert mine.keys() == others.keys()
        for name in mine:
            torch.testing.assert_close(mine[name], others[name], rtol=1e-3, atol=1e-4, msg=name)
    # Seeded anew on other processes: by the saved states, not by the seed of the start.
    assert runs[1][1][0]["drawn"] != runs[1][1][1]["drawn"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 3])
def test_deepspeed_goes_on_with_one_process_less(shards: str, tmp_path: Path, stage: int):
    pytest.importorskip("deepspeed")
    options: dict[str, Any] = {"shards": shards, "strategy": f"zero-{stage}"}
    whole = run_forked(train, 1, run_dir=str(tmp_path / "whole"), shards=shards, strategy="ddp", steps=HALF)
    first = run_forked(train, 2, run_dir=str(tmp_path / "run"), steps=2, **options)
    before = weights(tmp_path / "run")
    rest = run_forked(train, 1, run_dir=str(tmp_path / "run"), steps=HALF, **options)
    ours, theirs = by_step([(2, first.results), (1, rest.results)]), by_step([(1, whole.results)])
    assert ours[0] == theirs[0]
    assert ours[1] == pytest.approx(theirs[1], abs=1e-4)
    after, expected = weights(tmp_path / "run"), weights(tmp_path / "whole")
    for name in expected:
        torch.testing.assert_close(after[name], expected[name], rtol=1e-3, atol=1e-4, msg=name)
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("ema."))
    assert not list((tmp_path / "run" / FOLDER).glob("*.partial"))
    refused = run_forked(train, 1, run_dir=str(tmp_path / "run"), shards=shards, strategy="ddp", steps=9, may_fail=True)
    assert "is by CPUDeepSpeedStrategy, and SingleDeviceStrategy cannot go on from it" in refused.output


def validate(run_dir: str, shards: str, strategy: str, load: bool = True) -> float:
    """A loss of the newest checkpoint, or of the initial weights."""
    torch.set_num_threads(1)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    trainer = quiet_trainer(Path(run_dir), strategy=strategy_of(strategy, processes), devices=processes)
    data = ShardDataModule(train=shards, validation=shards, images=ImageConfig(size=4, channels=1), batch_size=8)
    ckpt_path = run_dir if load else None
    [measured] = trainer.validate(tiny_module(tiny_config()), datamodule=data, ckpt_path=ckpt_path, verbose=False)
    return measured["validation/total"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trained", "measured"),
    [("fsdp2", [("ddp", 1), ("fsdp2", 2)]), ("zero-3", [("zero-3", 2), ("zero-1", 1)])],
    ids=["fsdp2", "deepspeed"],
)
def test_validation_on_other_processes(shards: str, tmp_path: Path, trained: str, measured: list[tuple[str, int]]):
    if trained.startswith("zero"):
        pytest.importorskip("deepspeed")
    run_forked(train, 2, run_dir=str(tmp_path), shards=shards, strategy=trained, steps=2)
    losses = [
        loss
        for strategy, processes in measured
        for loss in run_forked(
            validate, processes, run_dir=str(tmp_path), shards=shards, strategy=strategy
        ).results.values()
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)
    untrained = run_forked(validate, 1, run_dir=str(tmp_path), shards=shards, strategy="ddp", load=False)
    assert losses[0] != pytest.approx(untrained.results[0], rel=1e-3)
