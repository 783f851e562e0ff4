"""Where training stands, without a trainer: positions as a checkpoint's numbers, and plans."""

from unittest.mock import Mock

import pytest
from lightning.pytorch import Trainer

from framework.core.errors import ConfigError
from framework.data.sampling.batching import BatchPlan
from framework.data.sampling.order import EpochOrder, Position
from framework.data.sampling.progress import Progress, check_limit, finished_batches, from_state, plan_for, to_state

STREAM = EpochOrder([22])
PLAN = BatchPlan(micro_batch=2, num_ranks=1, rank=0, accumulation=2)


def limited(limit: float) -> Trainer:
    """What `check_limit` asks of a trainer."""
    return Mock(spec=Trainer, fast_dev_run=False, limit_train_batches=limit)


def test_the_state_of_checkpoints_keeps_its_keys():
    position = Position(epoch=2, samples=8, consumed=48)
    assert to_state(position) == {"samples_consumed": 48, "epoch": 2, "samples": 8}
    assert from_state({**to_state(position), "order": "more"}, STREAM, PLAN) == position


def test_a_state_from_before_there_were_epochs():
    # 22 samples are five global batches of 4.
    assert from_state({"samples_consumed": 28}, STREAM, PLAN) == Position(epoch=1, samples=8, consumed=28)


def test_without_a_trainer_nothing_moves():
    start = Position(epoch=1, samples=4, consumed=24)
    assert Progress(trainer=None, start=start, batches=0).position(STREAM, PLAN) == start
    assert finished_batches(None) == 0
    assert plan_for(None, batch_size=3, global_batch=None) == BatchPlan(micro_batch=3)


@pytest.mark.parametrize("limit", [1.0, 4, 0.5])
def test_epochs_of_whole_steps(limit: float):
    check_limit(limited(limit), num_batches=8, accumulation=2)


@pytest.mark.parametrize(("limit", "used"), [(3, 2), (0.4, 2)])
def test_epochs_that_end_in_the_middle_of_a_step(limit: float, used: int):
    with pytest.raises(ConfigError, match=f"of which 2 make a step: use {used}"):
        check_limit(limited(limit), num_batches=8, accumulation=2)
