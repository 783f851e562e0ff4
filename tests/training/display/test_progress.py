"""The bar: steps of the whole run, what is left of it, metrics that fit the terminal; lines where there is none."""

from collections.abc import Callable
from io import StringIO
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from rich.console import Console

from framework.training.display.progress import StepProgressBar

LOSSES = {f"loss/number_{number}_nats": 0.123456 * (number + 1) for number in range(5)}
MODULE = Mock(spec=LightningModule)


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def trainer_at(step: int, **options: object) -> Mock:
    given: dict[str, object] = {
        "max_steps": 1000, "max_epochs": -1, "global_step": step, "loggers": [], "progress_bar_metrics": {},
        "callback_metrics": {name: torch.tensor(value) for name, value in LOSSES.items()},
        "_logger_connector": Mock(should_update_logs=True),
        "is_global_zero": True, "sanity_checking": False, "num_val_batches": [3],
    }  # fmt: skip
    return Mock(spec=Trainer, **{**given, **options})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(clock: Clock) -> Callable[..., tuple[StepProgressBar, StringIO]]:
    def made(*, terminal: bool, width: int = 80) -> tuple[StepProgressBar, StringIO]:
        out = StringIO()
        console = Console(file=out, force_terminal=terminal, width=width, color_system=None, soft_wrap=True)
        return StepProgressBar(console, clock), out

    return made


def train(bar: StepProgressBar, trainer: Mock, clock: Clock, *, steps: int, seconds: float, accumulation: int = 1):
    bar.setup(trainer, MODULE, "fit")
    bar.on_train_start(trainer, MODULE)
    for number in range(steps * accumulation):
        clock.now += seconds / accumulation
        trainer.global_step += (number + 1) % accumulation == 0
        bar.on_train_batch_end(trainer, MODULE, None, None, number)


@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_resumed_run_shows_its_own_steps_and_what_is_left(make, clock: Clock, accumulation: int):
    bar, out = make(terminal=True)
    train(bar, trainer_at(400), clock, steps=101, seconds=2.0, accumulation=accumulation)
    assert bar.done(trainer_at(501)) == "501/1,000"
    # 499 steps of 2 seconds.
    assert bar.speed() == ["2 s/step", "17 min left"]
    bar.on_train_end(trainer_at(501), MODULE)
    shown = out.getvalue()
    assert "step 400/1,000" in shown
    assert "step 501/1,000" in shown
    assert "17 min left" in shown


def test_every_metric_can_be_read_in_80_columns(make, clock: Clock):
    bar, out = make(terminal=True)
    train(bar, trainer_at(0), clock, steps=3, seconds=1.0)
    bar.on_train_end(trainer_at(3), MODULE)
    lines = out.getvalue().splitlines()
    assert all(f"{name} {value:.4g}" in out.getvalue() for name, value in LOSSES.items())
    assert max(map(len, lines)) < 120, "with the terminal's own signs"


@pytest.mark.parametrize("width", [40, 60, 120])
def test_steps_and_what_is_left_are_not_cut(make, clock: Clock, width: int):
    bar, out = make(terminal=True, width=width)
    train(bar, trainer_at(123_456, max_steps=300_000), clock, steps=3, seconds=200.0)
    bar.on_train_end(trainer_at(123_459, max_steps=300_000), MODULE)
    assert "step 123,459/300,000" in out.getvalue()
    assert "200 s/step" in out.getvalue()
    assert "408 d 16 h left" in out.getvalue()
    assert "…" not in out.getvalue()


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(make, clock: Clock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "dumb")
    bar, out = make(terminal=True)
    train(bar, trainer_at(0), clock, steps=100, seconds=1.0)
    assert [line.partition(",")[0] for line in out.getvalue().splitlines()] == ["step 30/1", "step 90/1"]


def test_a_run_without_an_end_has_no_total(make, clock: Clock):
    bar, _ = make(terminal=True)
    train(bar, trainer_at(0, max_steps=-1), clock, steps=3, seconds=0.25)
    assert bar.done(trainer_at(3)) == "3"
    assert bar.speed() == ["4 steps/s"]
    bar.on_exception(trainer_at(3), MODULE, KeyboardInterrupt())


def test_a_validation_has_a_bar_of_its_own(make, clock: Clock):
    bar, out = make(terminal=True)
    trainer = trainer_at(0, state=Mock(fn="fit"))
    train(bar, trainer, clock, steps=2, seconds=1.0)
    bar.on_validation_start(trainer, MODULE)
    for number in range(3):
        bar.on_validation_batch_end(trainer, MODULE, None, None, number)
    bar.on_train_batch_end(trainer, MODULE, None, None, 3)
    bar._bar.refresh()
    bar.on_validation_end(trainer, MODULE)
    bar.on_train_end(trainer, MODULE)
    assert "validation" in out.getvalue()
    assert "validation" not in out.getvalue().rpartition("step 2/1,000")[2], "its bar has gone"


def test_a_log_gets_a_line_now_and_then(make, clock: Clock):
    bar, out = make(terminal=False)
    train(bar, trainer_at(0), clock, steps=100, seconds=1.0)
    lines = out.getvalue().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["step 30/1", "step 90/1"]
    assert "1 s/step, 16 min left, loss/number_0_nats 0.1235" in lines[0]


def test_other_ranks_and_short_runs_show_nothing(make, clock: Clock):
    for options, steps in ({"is_global_zero": False}, 100), ({}, 20):
        bar, out = make(terminal=False)
        train(bar, trainer_at(0, **options), clock, steps=steps, seconds=1.0)
        assert out.getvalue() == ""


def test_the_version_of_a_logger_is_not_a_metric(make):
    bar, _ = make(terminal=False)
    asked_for = {"v_num": 3, "accuracy": 0.5, "count": 2}
    trainer = trainer_at(0, progress_bar_metrics=asked_for, callback_metrics={})
    bar.on_validation_end(trainer, MODULE)
    assert bar.shown() == ["accuracy 0.5", "count 2"]


def test_metrics_are_those_of_the_last_log(make, clock: Clock):
    """Between two logs no number is read, from a GPU it would be waited for."""
    bar, _ = make(terminal=True)
    trainer = trainer_at(0)
    train(bar, trainer, clock, steps=1, seconds=1.0)
    trainer.callback_metrics = {"loss/flow_mse": torch.tensor(1.5), "speed/batch_seconds": torch.tensor(2.0)}
    trainer._logger_connector.should_update_logs = False
    bar.on_train_batch_end(trainer, MODULE, None, None, 1)
    assert bar.shown()[0].startswith("loss/number_0_nats")
    trainer._logger_connector.should_update_logs = True
    bar.on_train_batch_end(trainer, MODULE, None, None, 2)
    assert bar.shown() == ["loss/flow_mse 1.5"]
    bar.on_train_end(trainer, MODULE)
