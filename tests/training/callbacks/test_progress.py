"""The progress bar counts optimizer steps."""

from typing import Any
from unittest.mock import Mock

import pytest
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

from framework.training.callbacks.progress import StepProgressBar


def test_lightning_still_asks_for_the_description():
    told = "Lightning has moved RichProgressBar._get_train_description, which StepProgressBar overrides"
    assert hasattr(RichProgressBar, "_get_train_description"), told
    assert StepProgressBar()._get_train_description(3) == "epoch 3"


@pytest.mark.parametrize(("max_steps", "shown"), [(100, "7/100"), (-1, "7")])
def test_steps_out_of_how_many(max_steps: int, shown: str, monkeypatch: pytest.MonkeyPatch):
    logged: dict[str, Any] = {"v_num": 2, "loss/total": 0.5}
    monkeypatch.setattr(RichProgressBar, "get_metrics", lambda *_: dict(logged))
    trainer, module = Mock(spec=Trainer, max_steps=max_steps, global_step=7), Mock(spec=LightningModule)
    assert StepProgressBar().get_metrics(trainer, module) == {"step": shown, "loss/total": 0.5}
