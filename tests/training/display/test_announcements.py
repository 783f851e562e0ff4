"""Parameters without the average counted twice, the time that training will take, what is left of the time limit."""

import logging
from unittest.mock import Mock

import pytest
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from torch import nn

from framework.testing.models import tiny_module
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.display.announcements import ModelParts, OutOfReach, TimeLimit, TimeNeeded, describe_parts
from framework.training.optimizer import OptimizerConfig

MODULE = Mock(spec=LightningModule)


class Parts(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model, self.head = nn.Linear(30, 40, bias=False), nn.Linear(4, 5)
        self.ema = nn.Linear(30, 40, bias=False).requires_grad_(False)


def test_parameters_by_parts():
    told = "Parts: 1.23k parameters in training (model 1.2k, head 25); not trained: ema 1.2k"
    assert describe_parts(Parts()) == told
    assert describe_parts(LightningModule()) == "LightningModule: 0 parameters in training"


def test_the_average_of_a_model_is_not_counted(caplog: pytest.LogCaptureFixture):
    module = tiny_module()
    module._trainer = Mock(spec=Trainer, strategy=Mock(spec=[]))
    module.configure_model()
    count = sum(p.numel() for p in module.model.parameters())
    with caplog.at_level(logging.INFO):
        ModelParts().on_fit_start(Mock(spec=Trainer, is_global_zero=True), module)
        ModelParts().on_fit_start(Mock(spec=Trainer, is_global_zero=False), module)
    (line,) = caplog.messages
    assert line == f"PRAModule: {count / 1e3:.3g}k parameters in training (model); not trained: ema {count / 1e3:.3g}k"


@pytest.mark.parametrize(
    ("max_steps", "seconds", "expected"),
    [
        (50_000, 31.0, ["a step takes 31 s: about 17 d 23 h to step 50,000, without validations and checkpoints"]),
        (1000, 0.5, ["a step takes 0.5 s: about 8 min to step 1,000, without validations and checkpoints"]),
        (100, 0.5, []),
        (-1, 31.0, []),
    ],
)
def test_the_time_is_said_once_after_a_few_steps(
    caplog: pytest.LogCaptureFixture, max_steps: int, seconds: float, expected: list[str]
):
    now = 0.0
    needed = TimeNeeded(lambda: now)
    options = {"max_steps": max_steps, "max_epochs": -1, "is_global_zero": True, "fast_dev_run": False}
    trainer = Mock(spec=Trainer, global_step=0, **options)
    needed.on_train_start(trainer, MODULE)
    with caplog.at_level(logging.INFO):
        for number in range(40):
            now += seconds
            trainer.global_step += 1
            needed.on_train_batch_end(trainer, MODULE, None, None, number)
    assert caplog.messages == expected


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        (0.0, []),
        (2400.0, ["trainer.max_time: 20 min are left, after 40 min of earlier starts"]),
        (4000.0, ["trainer.max_time is used up: earlier starts trained for 67 min; give a longer time to go on"]),
    ],
)
def test_what_earlier_starts_used_of_the_time(caplog: pytest.LogCaptureFixture, used: float, expected: list[str]):
    timer = Timer(duration={"hours": 1})
    timer.load_state_dict({"time_elapsed": {"train": used}})
    with caplog.at_level(logging.INFO):
        TimeLimit().on_train_start(Mock(spec=Trainer, callbacks=[timer], is_global_zero=True), MODULE)
    assert caplog.messages == expected


def out_of_reach(caplog: pytest.LogCaptureFixture, **options: object) -> list[str]:
    """What is said at the start of a run, of 100 steps with a validation every 10 of them unless `options` differ."""
    given = {
        "max_steps": 100, "max_epochs": -1, "is_global_zero": True, "log_every_n_steps": 10, "loggers": ["csv"],
        "callbacks": [Checkpoints(every_n_steps=20)], "enable_validation": True, "val_check_batch": 20,
        "check_val_every_n_epoch": None, "num_training_batches": float("inf"), "accumulate_grad_batches": 2,
        **{name: value for name, value in options.items() if name != "optimizer"},
    }  # fmt: skip
    module = Mock(spec=LightningModule, optimizer_config=options.get("optimizer", OptimizerConfig(warmup_steps=10)))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        OutOfReach().on_train_start(Mock(spec=Trainer, **given), module)
    return caplog.messages


def test_what_a_run_is_too_short_for_is_said_in_a_line(caplog: pytest.LogCaptureFixture):
    assert out_of_reach(caplog) == []
    short = {"optimizer": OptimizerConfig(warmup_steps=1000), "log_every_n_steps": 50, "max_steps": 8}
    assert out_of_reach(caplog, **short) == [
        "in a run of 8 steps: warmup_steps 1000 end after the run: the learning rate rises to 0.008 of learning_rate; "
        "trainer.log_every_n_steps 50 leaves no row of metrics; the first validation would come after 10"
    ]
    assert out_of_reach(caplog, **short, is_global_zero=False) == []
    assert out_of_reach(caplog, **short, loggers=[], enable_validation=False) == [
        "in a run of 8 steps: warmup_steps 1000 end after the run: the learning rate rises to 0.008 of learning_rate"
    ]


def test_a_run_without_an_end_is_long_enough(caplog: pytest.LogCaptureFixture):
    assert out_of_reach(caplog, max_steps=-1, optimizer=OptimizerConfig(warmup_steps=10**6)) == []
    (line,) = out_of_reach(caplog, max_steps=-1, optimizer=OptimizerConfig(final_fraction=0.1))
    assert line == "in this run: final_fraction 0.1 changes nothing, the schedule being constant, not cosine"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"val_check_batch": 202}, ["in a run of 100 steps: the first validation would come after 101"]),
        ({"val_check_batch": 200}, []),
        ({"val_check_batch": None}, []),
        ({"val_check_batch": float("inf")}, []),
        ({"check_val_every_n_epoch": 1, "num_training_batches": 50, "val_check_batch": 50}, []),
        (
            {"check_val_every_n_epoch": 5, "num_training_batches": 50, "val_check_batch": 50},
            ["in a run of 100 steps: the first validation would come after 125"],
        ),
    ],
)
def test_a_validation_that_never_comes(caplog: pytest.LogCaptureFixture, options: dict[str, object], expected: list):
    assert out_of_reach(caplog, **options) == expected


def test_the_best_of_no_checkpoint(caplog: pytest.LogCaptureFixture):
    kept = {"keep_best": 2, "best_metric": "validation/total"}
    assert out_of_reach(caplog, callbacks=[Checkpoints(every_n_steps=25, **kept)]) == []  # step 50
    assert out_of_reach(caplog, callbacks=[Checkpoints(every_n_steps=51, **kept)]) == []  # the last step
    (line,) = out_of_reach(caplog, callbacks=[Checkpoints(every_n_steps=51, **kept)], max_steps=95)
    assert line.endswith(
        "no step has both a checkpoint (every 51) and a validation (every 10), and checkpoint.keep_best 2 keeps none"
    )
