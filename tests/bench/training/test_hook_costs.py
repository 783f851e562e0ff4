"""Hooks within hooks are not counted twice, and what no hook takes is Lightning's."""

import json
import time
from pathlib import Path

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from framework.bench.training.hook_costs import BETWEEN, HOOKS, HookCost, HookTimer, TimeHooks, costs_of
from framework.core.serialization import from_json
from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_module


class Busy(Callback):
    """Works for three milliseconds in each step."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        work(0.003)


def work(seconds: float) -> None:
    started = time.thread_time()
    while time.thread_time() - started < seconds:
        pass


def test_time_within_another_hook_is_that_of_the_inner_one():
    timer = HookTimer()
    with timer.profile("outer"):
        work(0.002)
        with timer.profile("inner"):
            work(0.005)
    assert timer.seconds["inner"] == pytest.approx(0.005, abs=0.002)
    assert timer.seconds["outer"] == pytest.approx(0.002, abs=0.002)
    assert timer.calls == {"inner": 1, "outer": 1}


def test_costs_by_hand():
    seconds = {
        "[Callback]Bar.on_train_batch_end": 0.030,
        "[Callback]Bar.on_before_backward": 0.010,
        "[Strategy]Single.backward": 0.400,
        "[_TrainingEpochLoop].train_dataloader_next": 0.100,
        "run_training_batch": 0.050,
    }
    # Ten steps of 60 ms; each of the fifty measured calls takes 1 ms more, half of it in the hook.
    costs = costs_of(seconds, dict.fromkeys(seconds, 10), steps=10, total=0.65, timing=0.001)
    found = {cost.owner: (cost.is_callback, cost.calls, round(cost.microseconds)) for cost in costs}
    assert found == {
        "Single.backward": (False, 1.0, 39_500),
        "next batch of the loader": (False, 1.0, 9_500),
        # Two hooks of one callback.
        "Bar": (True, 2.0, 3_000),
        # 650 - 520 - 50 ms.
        BETWEEN: (False, 0.0, 8_000),
    }
    assert [cost.microseconds for cost in costs] == sorted((cost.microseconds for cost in costs), reverse=True)


def test_a_callback_that_works_is_seen_in_a_run(tmp_path: Path):
    batches = [tiny_batch(tiny_config(), 2, seed=seed) for seed in range(3)]
    trainer = quiet_trainer(tmp_path, callbacks=[TimeHooks(2), Busy()], max_steps=6, limit_val_batches=0)
    trainer.fit(tiny_module(), datamodule=Batches(batches))
    costs = [from_json(HookCost, each) for each in json.loads((tmp_path / HOOKS).read_text())]
    (busy,) = [cost for cost in costs if cost.owner == "Busy"]
    assert busy.is_callback
    assert busy.microseconds == pytest.approx(3000, rel=0.3)
    assert any(cost.owner == BETWEEN for cost in costs)
