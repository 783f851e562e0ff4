"""How many steps a run has, whatever bounds it."""

import math
from unittest.mock import Mock

import pytest
from lightning.pytorch import Trainer

from framework.data.module import ShardDataModule
from framework.training.length import total_steps


@pytest.mark.parametrize(
    ("max_steps", "max_epochs", "expected"),
    [(40, -1, 40), (-1, 3, 21), (40, 3, 21), (10, 3, 10), (-1, -1, -1), (-1, None, -1), (0, -1, 0)],
)
def test_the_bound_that_comes_first(max_steps: int, max_epochs: int | None, expected: int):
    data = Mock(spec=ShardDataModule, steps_per_epoch=7)
    assert total_steps(Mock(spec=Trainer, max_steps=max_steps, max_epochs=max_epochs, datamodule=data)) == expected


@pytest.mark.parametrize(("estimate", "expected"), [(12, 12), (math.inf, -1)])
def test_other_data_are_estimated_by_the_trainer(estimate: float, expected: int):
    trainer = Mock(spec=Trainer, max_steps=-1, max_epochs=3, datamodule=None, estimated_stepping_batches=estimate)
    assert total_steps(trainer) == expected
