"""A met bound ends training at its start or after a step, and not between."""

from typing import Any
from unittest.mock import MagicMock

from lightning.pytorch import Trainer

from framework.gbc.execution.budget import Budget, BudgetConfig, Spending
from framework.gbc.training.budget_stop import BudgetStop, end_training


def trainer_of(step: int) -> Any:
    return MagicMock(spec=Trainer, global_step=step, should_stop=False)


def test_a_bound_is_looked_at_after_a_step():
    budget, trainer = Budget(BudgetConfig(max_calls=2)), trainer_of(3)
    stop = BudgetStop(budget)
    stop.on_train_start(trainer, None)
    budget.add([{"a": Spending(calls=2)}])
    # A micro-batch of a step that is not finished.
    stop.on_train_batch_end(trainer, None, None, None, 0)
    assert not trainer.should_stop
    trainer.global_step = 4
    stop.on_train_batch_end(trainer, None, None, None, 1)
    assert trainer.should_stop


def test_a_spent_budget_makes_no_step():
    budget, trainer = Budget(BudgetConfig(max_calls=2)), trainer_of(3)
    budget.add([{"a": Spending(calls=2)}])
    BudgetStop(budget).on_train_start(trainer, None)
    assert trainer.should_stop


def test_the_reason_is_told_once(caplog):
    trainer = trainer_of(0)
    with caplog.at_level("INFO", logger="framework"):
        end_training(trainer, "one reason")
        end_training(trainer, "another")
    assert trainer.should_stop
    assert "training ends: one reason" in caplog.text
    assert "another" not in caplog.text
