"""Metrics of steps reach Lightning where somebody reads them, and are those of that step."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader

from framework.testing.models import quiet_trainer
from framework.training.callbacks.step_metrics import StepMetrics, log_step


class Counting(LightningModule):
    """Its loss is the number of the step, from 1; it counts what it hands to Lightning."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.num_logged = 0

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        log_step(self, {"loss/total": torch.tensor(float(self.trainer.global_step + 1))})
        return batch + 0 * self.weight

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("validation/total", batch)

    def log_dict(self, dictionary: dict, *args: object, **kwargs: object) -> None:
        self.num_logged += len(dictionary)
        super().log_dict(dictionary, *args, **kwargs)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Stops(Callback):
    """Asks for the end after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        trainer.should_stop = trainer.should_stop or trainer.global_step == self.step


class Seen(Callback):
    """What others find at a validation and after the last step."""

    def __init__(self) -> None:
        self.at_validation: list[float] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.at_validation.append(trainer.callback_metrics["loss/total"].item())


def fit(folder: Path, *callbacks: Callback, batches: int = 100, **options: object) -> tuple[Trainer, Counting]:
    logger = CSVLogger(folder, flush_logs_every_n_steps=1)
    trainer = quiet_trainer(folder, callbacks=list(callbacks), logger=logger, log_every_n_steps=5, **options)
    module, data = Counting(), DataLoader(torch.zeros(batches), batch_size=None)
    trainer.fit(module, data, DataLoader(torch.zeros(1), batch_size=None))
    return trainer, module


def rows(folder: Path) -> dict[int, float]:
    """The loss at each logged step, from 0."""
    header, *lines = (line.split(",") for line in next(folder.rglob("metrics.csv")).read_text().splitlines())
    step, loss = header.index("step"), header.index("loss/total")
    return {int(line[step]): float(line[loss]) for line in lines if line[loss]}


@pytest.mark.parametrize("keeps", [True, False])
def test_the_logged_steps_have_their_own_values(tmp_path: Path, keeps: bool):
    trainer, module = fit(tmp_path, *([StepMetrics()] if keeps else []), max_steps=17, limit_val_batches=0)
    assert rows(tmp_path) == {4: 5.0, 9: 10.0, 14: 15.0}
    assert trainer.callback_metrics["loss/total"].item() == 17
    # Three that are logged, and the last.
    assert module.num_logged == (4 if keeps else 17)


@pytest.mark.parametrize("stop_first", [True, False])
def test_a_step_that_becomes_the_last_by_surprise_is_logged_with_its_own_value(tmp_path: Path, stop_first: bool):
    callbacks = [Stops(7), StepMetrics()] if stop_first else [StepMetrics(), Stops(7)]
    fit(tmp_path, *callbacks, max_steps=17, limit_val_batches=0)
    assert rows(tmp_path) == {4: 5.0, 6: 7.0}


def test_steps_after_a_stop_that_comes_too_early_are_logged_with_their_own_values(tmp_path: Path):
    fit(tmp_path, StepMetrics(), Stops(7), max_steps=17, min_steps=10, limit_val_batches=0)
    # Lightning goes on to the end of an epoch.
    assert rows(tmp_path) == {step: step + 1.0 for step in (4, *range(6, 17))}


@pytest.mark.parametrize("options", [{"val_check_interval": 3}, {"val_check_interval": None, "max_epochs": 2}])
def test_a_validation_finds_those_of_the_step_before_it(tmp_path: Path, options: dict[str, object]):
    seen = Seen()
    if options["val_check_interval"] is None:
        fit(tmp_path, StepMetrics(), seen, batches=6, check_val_every_n_epoch=1, **options)
        assert seen.at_validation == [6.0, 12.0]
    else:
        fit(tmp_path, StepMetrics(), seen, max_steps=8, **options)
        assert seen.at_validation == [3.0, 6.0]


def test_several_micro_batches_of_a_step_log_the_last(tmp_path: Path):
    fit(tmp_path, StepMetrics(), max_steps=6, accumulate_grad_batches=2, limit_val_batches=0)
    assert rows(tmp_path) == {4: 5.0}
