"""Every option of Lightning's Trainer is in the table, works or is refused in a line, and stands in the documents."""

import inspect
import re
from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from framework.core.errors import ConfigError
from framework.training.trainer_options import TRAINER_OPTIONS, check_trainer_options, described, refuses

PAGE = Path(__file__).parents[2] / "docs" / "trainer.md"
EARLY_STOPPING = {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "x"}}
SLURM = {"class_path": "lightning.pytorch.plugins.environments.SLURMEnvironment"}
ACCEPTED = {
    "accelerator": ["auto", "cpu", "gpu"],
    "devices": ["auto", 2, [0, 1]],
    "precision": [None, "32-true", "bf16-mixed", "16-mixed", 32],
    "logger": [None, False, [{"class_path": "lightning.pytorch.loggers.CSVLogger"}]],
    "callbacks": [None, [], EARLY_STOPPING, [EARLY_STOPPING]],
    "fast_dev_run": [False, True, 3],
    "max_epochs": [-1, None, 2],
    "max_steps": [-1, 10],
    "max_time": [None, "00:01:00:00", {"minutes": 5}],
    "min_steps": [None, 0, 3],
    "limit_train_batches": [None, 1, 0.5],
    "limit_val_batches": [None, 0],
    "val_check_interval": [None, 10, "00:00:10:00"],
    "num_sanity_val_steps": [0, 2],
    "accumulate_grad_batches": [1, 4],
    "gradient_clip_val": [None, 0, 1.0],
    "gradient_clip_algorithm": [None, "norm", "value"],
    "deterministic": [None, True, "warn"],
    "profiler": [None, "simple"],
    "plugins": [None, [SLURM], SLURM],
    "sync_batchnorm": [False, True],
    # What changes nothing.
    "strategy": ["auto"],
    "limit_test_batches": [None, 1.0],
    "overfit_batches": [0.0],
    "enable_checkpointing": [None, True],
    "inference_mode": [False],
    "use_distributed_sampler": [False],
    "barebones": [False],
    "reload_dataloaders_every_n_epochs": [0],
    "default_root_dir": [None],
    "enable_autolog_hparams": [True],
    "model_registry": [None],
}
REFUSED = [
    ("accelerator", "tpu", "use auto, cpu"),
    ("strategy", "fsdp", "set strategy.name"),
    ("num_nodes", 0, "use 1 or more"),
    ("precision", "bf16-true", "use bf16-mixed"),
    ("precision", "16-true", "use bf16-mixed"),
    ("precision", "64-true", "use bf16-mixed"),
    ("precision", "transformer-engine", "use bf16-mixed"),
    ("logger", True, "run.wandb"),
    ("callbacks", [{"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}], "use checkpoint"),
    ("callbacks", {"class_path": "lightning.pytorch.callbacks.StochasticWeightAveraging"}, "ema_decay"),
    ("max_epochs", 0, "use 1 or more"),
    ("min_epochs", -1, "use 0 or more"),
    ("max_steps", 0, "use 1 or more, or -1"),
    ("max_steps", -2, "use 1 or more, or -1"),
    ("min_steps", -1, "use 0 or more"),
    ("max_time", "1h", "DD:HH:MM:SS"),
    ("max_time", 10, "DD:HH:MM:SS"),
    ("val_check_interval", "two", "DD:HH:MM:SS"),
    ("fast_dev_run", -1, "use true, or 1 or more"),
    ("profiler", "xla", "use simple, advanced or pytorch"),
    ("limit_train_batches", 0, "use 1 or more"),
    ("limit_val_batches", -1, "use 0 for no validation"),
    ("val_check_interval", 0, "limit_val_batches 0"),
    ("check_val_every_n_epoch", 0, "limit_val_batches 0"),
    ("num_sanity_val_steps", -2, "-1 for all"),
    ("log_every_n_steps", -1, "0 for no rows"),
    ("limit_test_batches", 3, "leave it out"),
    ("limit_predict_batches", 0.5, "leave it out"),
    ("overfit_batches", 2, "shards images"),
    ("enable_checkpointing", False, "checkpoint.every_n_steps"),
    ("accumulate_grad_batches", 0, "use 1 or more"),
    ("gradient_clip_val", -1.0, "use a positive number"),
    ("gradient_clip_algorithm", "max", "use norm or value"),
    ("inference_mode", True, "leave it out"),
    ("use_distributed_sampler", True, "leave it out"),
    ("barebones", True, "framework bench training"),
    ("plugins", "async_checkpointing", "cluster environments"),
    ("plugins", [{"class_path": "lightning.pytorch.plugins.MixedPrecision"}], "cluster environments"),
    ("reload_dataloaders_every_n_epochs", 1, "leave it out"),
    ("default_root_dir", "x", "set run.dir"),
    ("enable_autolog_hparams", False, "leave it out"),
    ("model_registry", "x", "framework export"),
]


def test_lightnings_options_are_the_tables():
    options = list(inspect.signature(Trainer.__init__).parameters)[1:]
    assert list(TRAINER_OPTIONS) == options, "Lightning has other options than the table: add them, and try them"


@pytest.mark.parametrize("name", TRAINER_OPTIONS)
def test_every_option_works_or_is_refused(name: str):
    option = TRAINER_OPTIONS[name]
    refused = {each for each, *_ in REFUSED}
    assert option.effect or name in refused
    assert bool(option.because) == bool(option.hint) == (name in refused)
    for value in ACCEPTED.get(name, [None]):
        check_trainer_options({name: value}, strategy="ddp")


@pytest.mark.parametrize(("name", "value", "hint"), REFUSED)
def test_a_refusal_is_a_line_with_the_way_out(name: str, value: object, hint: str):
    with pytest.raises(ConfigError) as caught:
        check_trainer_options({name: value}, strategy="ddp")
    shown = re.findall(r"'class_path': '([^']+)'", str(value)) or [value]
    assert str(caught.value).startswith(f"trainer.{name} {shown[0]} ")
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "value"), [("precision", "16-mixed"), ("gradient_clip_algorithm", "value"), ("sync_batchnorm", True)]
)
@pytest.mark.parametrize("strategy", ["fsdp2", "deepspeed"])
def test_what_needs_whole_weights_is_refused_where_they_are_sharded(name: str, value: object, strategy: str):
    with pytest.raises(ConfigError, match=f"under strategy.name {strategy}: use "):
        check_trainer_options({name: value}, strategy=strategy)


def test_the_documents_have_the_table():
    rows = [f"| `{name}` | {described(option)} |" for name, option in TRAINER_OPTIONS.items()]
    text = PAGE.read_text()
    shown = [line for line in text.splitlines() if line.startswith("| `")]
    assert shown == rows


def test_a_share_of_an_epoch_needs_epochs():
    with pytest.raises(ConfigError, match=r"check_val_every_n_epoch 1 too"):
        check_trainer_options({"val_check_interval": 0.5, "check_val_every_n_epoch": None}, strategy="ddp")
    check_trainer_options({"val_check_interval": 0.5, "check_val_every_n_epoch": 1}, strategy="ddp")


def test_choices_that_are_refused():
    refused = refuses(TRAINER_OPTIONS["precision"])
    assert refused("bf16-true")
    assert refused("64")
    assert refused("transformer-engine")
    assert not (refused("32"))
    assert not (refused("16"))
    assert not (refused("bf16-mixed"))


def test_the_least_is_not_above_the_most():
    for name in ("steps", "epochs"):
        check_trainer_options({f"min_{name}": 5, f"max_{name}": 5}, strategy="ddp")
        check_trainer_options({f"min_{name}": 5, f"max_{name}": -1}, strategy="ddp")
        with pytest.raises(ConfigError, match=rf"min_{name} 5 and trainer.max_{name} 3: let min_{name} be the smaller"):
            check_trainer_options({f"min_{name}": 5, f"max_{name}": 3}, strategy="ddp")
