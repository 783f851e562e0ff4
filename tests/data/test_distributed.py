"""On real processes: the same samples in every step, through kills and other topologies, and the same losses."""

import json
import os
import random
import signal
import warnings
from collections import defaultdict
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from framework.data.images.transforms import ImageConfig
from framework.data.loading.batch import ImageBatch
from framework.data.loading.loader import LoadingConfig
from framework.data.module import ShardDataModule
from framework.data.sampling.order import OrderConfig
from framework.testing.images import make_image_shards
from framework.testing.models import quiet_trainer, tiny_config, tiny_module
from framework.testing.processes.forked import run_forked
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.strategies.build import make_strategy
from framework.training.strategies.config import StrategyConfig

NUM_SAMPLES, GLOBAL_BATCH = 70, 8
STEPS_PER_EPOCH = NUM_SAMPLES // GLOBAL_BATCH
STEPS = 2 * STEPS_PER_EPOCH + 3
CURVE_STEPS = 50
Samples = list[list[int]]


class Recorder(LightningModule):
    """Notes [epoch, index] of the samples of every step."""

    def __init__(self, log: Path | None = None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.steps: dict[int, Samples] = defaultdict(list)
        self.log_path = log

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        samples = [[passed, index] for passed, index in zip(batch.sample_passes(), batch.indices.tolist(), strict=True)]
        self.steps[self.global_step] += samples
        if self.log_path is not None:
            with self.log_path.open("a") as stream:
                stream.write(json.dumps([self.global_step, samples]) + "\n")
        return self.layer(batch.images.mean().view(1)).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Losses(Callback):
    """Notes the loss of every micro-batch of this process."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        # Lightning has divided it for the sum over the step.
        self.losses.append(float(outputs["loss"]) * trainer.accumulate_grad_batches)


class Die(Callback):
    """Kills one rank in the middle of a step."""

    def __init__(self, kill_rank: int, kill_step: int) -> None:
        self.kill_rank, self.kill_step = kill_rank, kill_step

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.kill_step and trainer.global_rank == self.kill_rank:
            os.kill(os.getpid(), signal.SIGKILL)


def quiet() -> None:
    warnings.filterwarnings("ignore")


def trainer_of(folder: str, **options: Any) -> Trainer:
    world = int(os.environ.get("WORLD_SIZE", "1"))
    strategy = {"strategy": "ddp", "devices": world} if world > 1 else {"devices": 1}
    return quiet_trainer(Path(folder), **{**strategy, "limit_val_batches": 0, **options})


def record(folder: str, shards: Any, num_workers: int, accumulation: int) -> list[Samples]:
    world = int(os.environ.get("WORLD_SIZE", "1"))
    data = ShardDataModule(
        train=shards,
        batch_size=GLOBAL_BATCH // world // accumulation,
        images=ImageConfig(size=8),
        order=OrderConfig(shuffle="block", block_shards=3),
        loading=LoadingConfig(num_workers=num_workers),
    )
    recorder = Recorder()
    trainer_of(folder, max_steps=STEPS, accumulate_grad_batches=accumulation).fit(recorder, data)
    return [recorder.steps[step] for step in range(STEPS)]


def curve(folder: str, shards: str, accumulation: int) -> list[float]:
    """Losses of the micro-batches of a tiny PRA model, with random crops and flips."""
    seed_everything(7, verbose=False)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    data = ShardDataModule(
        train=shards,
        batch_size=GLOBAL_BATCH // world // accumulation,
        images=ImageConfig(size=4, channels=1, crop="random", flip=True),
    )
    losses = Losses()
    options = {"accumulate_grad_batches": accumulation, "callbacks": [losses], "max_steps": CURVE_STEPS}
    if world > 1:
        options["strategy"] = "ddp_find_unused_parameters_true"
    trainer_of(folder, **options).fit(tiny_module(tiny_config(num_classes=2)), data)
    return losses.losses


def everything(folder: str, shards: str, mixed: dict[str, float]) -> dict[str, Any]:
    """All that is asked of one number of processes: they start once, which is what takes the time."""
    quiet()
    steps = {
        f"{num_workers} workers, accumulation {accumulation}": record(folder, shards, num_workers, accumulation)
        for num_workers in (0, 1, 3)
        for accumulation in (1, 2)
    }
    mixed_steps = {f"accumulation {each}": record(folder, mixed, 1, each) for each in (1, 2)}
    world = int(os.environ.get("WORLD_SIZE", "1"))
    losses = curve(folder, shards, 2 // world) if world <= 2 else []
    return {"steps": steps, "mixed": mixed_steps, "losses": losses}


def train_until_killed(folder: str, shards: str, run: int, resume: bool, kill_rank: int, kill_step: int) -> None:
    quiet()
    rank = int(os.environ.get("RANK", "0"))
    data = ShardDataModule(
        train=shards,
        batch_size=2,
        global_batch=GLOBAL_BATCH,
        images=ImageConfig(size=8),
        loading=LoadingConfig(num_workers=run % 2),
    )
    recorder = Recorder(Path(folder) / f"run{run}-rank{rank}.jsonl")
    trainer = trainer_of(
        folder,
        max_steps=STEPS,
        callbacks=[Die(kill_rank, kill_step), Checkpoints(every_n_steps=1, asynchronous=False)],
        strategy=make_strategy(StrategyConfig(), accelerator="cpu", devices=int(os.environ.get("WORLD_SIZE", "1"))),
        enable_checkpointing=True,
    )
    trainer.fit(recorder, data, ckpt_path=folder if resume else None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("distributed")
    make_image_shards(path / "a", per_class=NUM_SAMPLES // 2, size=(12, 8), samples_per_shard=9)
    make_image_shards(path / "b", per_class=6, size=8, samples_per_shard=5)
    return path


@pytest.fixture(scope="module")
def runs(folder: Path):
    a, b = (str(folder / name / "shards") for name in "ab")

    @cache
    def run(world: int) -> list[dict[str, Any]]:
        mixed = {a: 0.75, b: 0.25}
        results = run_forked(everything, world, folder=str(folder / f"run{world}"), shards=a, mixed=mixed).results
        return [results[rank] for rank in range(world)]

    return run


def step_samples(results: list[dict[str, Any]], kind: str, case: str, step: int) -> Samples:
    return [sample for rank in results for sample in rank[kind][case][step]]


def order_of(shards: Any, **options: Any) -> list[Samples]:
    """The samples of every step, by the order alone."""
    data = ShardDataModule(
        train=shards, batch_size=GLOBAL_BATCH, images=ImageConfig(size=8), order=OrderConfig(**options)
    )
    batches = data.train_dataloader().batch_sampler.batches(data._progress.start)  # type: ignore[union-attr]
    return [[[batch.epoch, number] for number in batch.numbers.tolist()] for batch in islice(batches, STEPS)]


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 4])
def test_every_step_has_the_same_samples_on_every_topology(folder: Path, runs, world: int):
    expected = order_of(str(folder / "a" / "shards"), shuffle="block", block_shards=3)
    results = runs(world)
    assert len(results[0]["steps"]) == 6
    for case in results[0]["steps"]:
        for step in range(STEPS):
            samples = step_samples(results, "steps", case, step)
            if world > 1:
                assert sorted(samples) == sorted(expected[step]), (case, step)
            else:
                assert samples == expected[step], (case, step)


@pytest.mark.slow
def test_mixed_sets_too(runs):
    whole = runs(1)[0]["mixed"]["accumulation 1"]
    assert len({index >= NUM_SAMPLES for step in whole for _, index in step}) == 2
    for world in (1, 2, 4):
        for case in runs(world)[0]["mixed"]:
            for step in range(STEPS):
                assert sorted(step_samples(runs(world), "mixed", case, step)) == sorted(whole[step])


@pytest.mark.slow
def test_loss_curves_of_two_ranks_and_of_accumulation(runs):
    accumulated = torch.tensor(runs(1)[0]["losses"]).view(CURVE_STEPS, 2).mean(1)
    ranks = torch.tensor([result["losses"] for result in runs(2)]).mean(0)
    assert accumulated.min() < 0.9 * accumulated[0]
    difference = ((ranks - accumulated) / accumulated).abs().max()
    print(f"largest relative difference of {CURVE_STEPS} steps: {difference:.1e}")
    assert difference < 1e-5


@pytest.mark.slow
def test_killed_and_resumed_on_other_topologies(folder: Path, tmp_path: Path):
    shards, draw = str(folder / "a" / "shards"), random.Random(3)
    expected = order_of(shards)
    seen: dict[int, set[tuple[int, int]]] = defaultdict(set)
    kill_step = reached = 0
    for run, world in enumerate((4, 2, 1, 4)):  # The second and the last have workers.
        last = run == 3
        kill_step = STEPS + 1 if last else kill_step + draw.randint(2, 5)
        arguments = {"folder": str(tmp_path), "shards": shards, "run": run, "resume": run > 0}
        arguments |= {"kill_rank": draw.randrange(world), "kill_step": kill_step}
        ended = run_forked(train_until_killed, world, may_fail=not last, **arguments)
        assert any(ended.exitcodes) != last, ended.output
        parts: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for path in tmp_path.glob(f"run{run}-rank*.jsonl"):
            for line in path.read_text().splitlines():
                step, samples = json.loads(line)
                parts[step] += [(epoch, index) for epoch, index in samples]
        # It went on at the step that was not finished, and at no other.
        assert min(parts) == reached
        reached = kill_step
        for step, samples in parts.items():
            wanted = {(epoch, index) for epoch, index in expected[step]}
            assert len(set(samples)) == len(samples)
            assert set(samples) == wanted if step < kill_step else set(samples) <= wanted
            seen[step] |= set(samples)
    assert [sorted(seen[step]) for step in range(STEPS)] == [sorted(map(tuple, step)) for step in expected]
    first_epoch = [sample for step in range(STEPS_PER_EPOCH) for sample in seen[step]]
    assert len(first_epoch) == len(set(first_epoch)) == STEPS_PER_EPOCH * GLOBAL_BATCH
