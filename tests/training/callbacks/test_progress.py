"""The progress bar counts optimizer steps."""

from typing import Any
from unittest.mock import Mock

import pytest
import torch
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
    trainer, module = made_trainer(max_steps=max_steps), Mock(spec=LightningModule)
    assert StepProgressBar().get_metrics(trainer, module) == {"step": shown, "loss/flow_mse": 1.5, "loss/total": 0.5}


def made_trainer(**attributes: Any) -> Mock:
    connector = Mock(should_update_logs=True)
    logged = {"loss/flow_mse": torch.tensor(1.5), "speed/batch_seconds": torch.tensor(2.0)}
    shared = {"global_step": 7, "training": True, "callback_metrics": logged, "_logger_connector": connector}
    return Mock(spec=Trainer, **shared, **attributes)


def test_metrics_are_those_of_the_last_log(monkeypatch: pytest.MonkeyPatch):
    reads = []
    monkeypatch.setattr(RichProgressBar, "get_metrics", lambda *_: reads.append(1) or {"loss/total": len(reads)})
    trainer, bar = made_trainer(max_steps=100), StepProgressBar()
    module = Mock(spec=LightningModule)
    assert bar.get_metrics(trainer, module)["loss/total"] == 1
    trainer._logger_connector.should_update_logs, trainer.global_step = False, 8
    assert bar.get_metrics(trainer, module) == {"step": "8/100", "loss/flow_mse": 1.5, "loss/total": 1}
    trainer._logger_connector.should_update_logs = True
    assert bar.get_metrics(trainer, module)["loss/total"] == 2
