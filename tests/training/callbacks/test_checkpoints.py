"""When checkpoints are made during training, and which of them stay."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from framework.core.errors import ConfigError
from framework.testing.checkpoints import fit, steps_in
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.checkpoint import strategy
from framework.training.checkpoint.layout import FOLDER, FileRecord, name_of
from framework.training.checkpoint.read import read_tensors


class Listing(Callback):
    """The steps of the checkpoints that are there before each batch, the last save waited for."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.seen: list[list[int]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        self.checkpoints.wait()
        self.seen.append(steps_in(Path(trainer.default_root_dir)))


@pytest.mark.slow
@pytest.mark.parametrize("asynchronous", [True, False])
def test_every_n_steps_and_at_the_end(tmp_path: Path, asynchronous: bool):
    checkpoints = Checkpoints(every_n_steps=2, keep_last=2, asynchronous=asynchronous)
    listing = Listing(checkpoints)
    fit(tmp_path, checkpoints, listing, batches=7)
    assert listing.seen == [[], [], [2], [2], [2, 4], [2, 4], [4, 6]]
    assert steps_in(tmp_path) == [6, 7]
    assert {path.name for path in (tmp_path / FOLDER).iterdir()} == {"newest", name_of(6), name_of(7)}


@pytest.mark.slow
def test_accumulated_batches_are_one_step(tmp_path: Path):
    checkpoints = Checkpoints(every_n_steps=2, keep_last=3)
    listing = Listing(checkpoints)
    fit(tmp_path, checkpoints, listing, batches=8, accumulate_grad_batches=2)
    assert listing.seen == [[], [], [], [], [2], [2], [2], [2]]
    assert steps_in(tmp_path) == [2, 4]


@pytest.mark.slow
def test_the_copy_is_of_the_step_that_was_saved(tmp_path: Path):
    """Training that goes on does not reach into what is being written."""

    class Scribble(Callback):
        saved: torch.Tensor

        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
            weight = pl_module.model.head.network.project_in.weight
            if trainer.global_step == 2:
                self.saved = weight.detach().clone()
                checkpoints.save(trainer)
                with torch.no_grad():
                    weight.fill_(7)

    checkpoints, scribble = Checkpoints(every_n_steps=100, keep_last=5), Scribble()
    fit(tmp_path, checkpoints, scribble, batches=3)
    found = read_tensors(tmp_path / FOLDER / name_of(2), "model.head.network.project_in.")["weight"]
    assert torch.equal(found, scribble.saved)
    assert not torch.equal(found, torch.full_like(found, 7))


@pytest.mark.slow
def test_the_best_by_a_metric_stays(tmp_path: Path):
    checkpoints = Checkpoints(every_n_steps=1, keep_last=1, keep_best=1, best_metric="validation/total")
    fit(tmp_path, checkpoints, batches=5, val_check_interval=1)
    lines = (tmp_path / FOLDER / "validation.jsonl").read_text().splitlines()
    measured = [json.loads(line) for line in lines if line]
    assert [entry["step"] for entry in measured] == [1, 2, 3, 4, 5]
    # The validation of the newest one comes after it is saved, and perhaps before it is written.
    known = [
        min(part, key=lambda entry: entry["metrics"]["validation/total"])["step"] for part in (measured[:4], measured)
    ]
    assert steps_in(tmp_path) in [sorted({best, 5}) for best in known]
    unknown = Checkpoints(keep_best=1, best_metric="validation/speed")
    with pytest.raises(ConfigError, match=r"best_metric validation/speed is not measured: use one of: validation/"):
        fit(tmp_path / "other", unknown, batches=2, val_check_interval=1)


def held_saves(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Lets no save go on to the disk before the event."""
    go_on, write = threading.Event(), strategy.write_tensors

    def wait_and_write(*args: Any) -> dict[Path, FileRecord]:
        assert go_on.wait(60)
        return write(*args)

    monkeypatch.setattr(strategy, "write_tensors", wait_and_write)
    return go_on


class LetGo(Callback):
    """Lets the saves go on before a batch."""

    def __init__(self, event: threading.Event, batch: int) -> None:
        self.event, self.batch = event, batch

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        if batch_idx == self.batch:
            self.event.set()


@pytest.mark.slow
def test_a_save_is_skipped_while_the_last_one_is_written_and_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    go_on = held_saves(monkeypatch)
    checkpoints = Checkpoints(every_n_steps=1, keep_last=9, on_unfinished_save="skip")
    fit(tmp_path, checkpoints, LetGo(go_on, 3), batches=4)
    kept = steps_in(tmp_path)
    # Step 4 ends the run. It is due as well: it is skipped there if step 1 is not done, and made at the end.
    assert kept == [1, 4]
    skipped = [record.message for record in caplog.records if "no checkpoint of step" in record.message]
    assert skipped[0] == (
        "no checkpoint of step 2: the last one is still being written (checkpoint.on_unfinished_save: skip)"
    )
    assert [message.split()[4] for message in skipped[:2]] == ["2:", "3:"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"on_unfinished_save": "wait"},
        {"on_unfinished_save": "skip", "keep_every_n_steps": 1},
        {"on_unfinished_save": "skip", "keep_best": 1, "best_metric": "validation/total"},
    ],
)
def test_what_is_kept_for_good_or_may_be_the_best_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
):
    go_on = held_saves(monkeypatch)
    threading.Timer(0.3, go_on.set).start()
    fit(tmp_path, Checkpoints(every_n_steps=1, keep_last=9, **options), batches=3, val_check_interval=1)
    assert steps_in(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"every_n_steps": 0}, "every_n_steps 0"),
        ({"keep_last": 0}, "keep_last 0"),
        ({"keep_every_n_steps": 0}, "keep_every_n_steps 0"),
        ({"keep_best": 1}, "keep_best 1 with best_metric None: set both, or neither"),
        ({"on_unfinished_save": "skip", "asynchronous": False}, "on_unfinished_save skip with asynchronous false"),
        ({"best_metric": "validation/total"}, "keep_best 0 with best_metric validation/total"),
    ],
)
def test_checkpoints_that_cannot_be(changes: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words):
        Checkpoints(**changes)
