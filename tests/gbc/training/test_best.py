"""What is kept of a training: the parameters with the least validation loss, and what begins the comparison anew."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn

from framework.gbc.training.best import BEST, GRAPH, SOFT_PROMPTS, VALIDATION, SaveBest


class Folder:
    """Writes numbers that count up, as prompts and as parameters."""

    def __init__(self, *, trains: bool = True) -> None:
        self.trains, self.count = trains, 0

    def prompts(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / GRAPH).write_text(str(self.count))

    def parameters(self, folder: Path) -> bool:
        folder.mkdir(parents=True, exist_ok=True)
        if self.trains:
            (folder / SOFT_PROMPTS).write_text(str(self.count))
        return self.trains


def trainer_of(run_dir: Path, *, step: int, loss: float = 0.0, failed: float = 0.0) -> Any:
    return MagicMock(
        spec=Trainer,
        default_root_dir=str(run_dir),
        is_global_zero=True,
        sanity_checking=False,
        global_step=step,
        state=SimpleNamespace(fn=TrainerFn.FITTING),
        callback_metrics={"validation/loss": loss, "validation/failed_share": failed},
    )


def test_the_least_loss_is_kept_and_failed_tasks_count_as_one(tmp_path: Path):
    folder = Folder()
    best = SaveBest(folder.prompts, folder.parameters)
    for step, (loss, failed) in enumerate([(0.5, 0.0), (0.25, 0.5), (0.25, 0.0), (0.375, 0.0)], start=1):
        folder.count = step
        best.on_validation_end(trainer_of(tmp_path, step=step, loss=loss, failed=failed), None)
    assert best.loss == 0.25
    assert (tmp_path / BEST / SOFT_PROMPTS).read_text() == "3"
    assert json.loads((tmp_path / BEST / VALIDATION).read_text()) == {"step": 3, "loss": 0.25}


def test_other_prompts_begin_anew(tmp_path: Path):
    folder = Folder()
    best = SaveBest(folder.prompts, folder.parameters)
    best.on_validation_end(trainer_of(tmp_path, step=1, loss=0.25), None)
    folder.count = 2
    best.start_anew(trainer_of(tmp_path, step=1), step=2)
    assert best.loss is None
    assert (tmp_path / BEST / GRAPH).read_text() == (tmp_path / BEST / SOFT_PROMPTS).read_text() == "2"
    best.on_validation_end(trainer_of(tmp_path, step=3, loss=0.5), None)
    assert best.loss == 0.5


def test_a_validation_after_the_last_checkpoint_is_remembered(tmp_path: Path):
    folder = Folder()
    SaveBest(folder.prompts, folder.parameters).on_validation_end(trainer_of(tmp_path, step=4, loss=0.25), None)
    for step, loss in ((4, 0.25), (3, None)):
        again = SaveBest(folder.prompts, folder.parameters)
        again.on_train_start(trainer_of(tmp_path, step=step), None)
        assert again.loss == loss


def test_without_a_validation_the_last_are_kept(tmp_path: Path):
    folder = Folder()
    best = SaveBest(folder.prompts, folder.parameters)
    best.on_train_end(trainer_of(tmp_path, step=7), None)
    assert json.loads((tmp_path / BEST / VALIDATION).read_text()) == {"step": 7, "loss": None}
    nothing = Folder(trains=False)
    SaveBest(nothing.prompts, nothing.parameters).on_train_end(trainer_of(tmp_path / "other", step=7), None)
    assert [path.name for path in (tmp_path / "other" / BEST).iterdir()] == [GRAPH]
