"""Lightning's options of a Trainer: what each does in a recipe's `trainer` section, and which values are refused, why.

The one table: recipes are checked against it, and docs/trainer.md shows it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

from lightning.pytorch import callbacks
from lightning.pytorch.plugins.environments import ClusterEnvironment

from framework.core.errors import ConfigError
from framework.core.imports import import_object
from framework.training.strategies.backend import WHOLE


@dataclass(frozen=True, kw_only=True)
class TrainerOption:
    """An option of Lightning's Trainer.

    Attributes:
        effect: what it does here; empty where every value but the default is refused.
        accepts: whether a value can be used.
        because: why another value cannot.
        hint: what to do instead.
    """

    effect: str = ""
    accepts: Callable[[object], bool] = lambda value: True
    because: str = ""
    hint: str = ""


def _one_of(*values: object) -> Callable[[object], bool]:
    # True is 1, and 1.0 is 1: here they are different values.
    return lambda value: any(value == each and type(value) is type(each) for each in values)


def _refused(*defaults: object, because: str, hint: str) -> TrainerOption:
    """An option of which only the values that change nothing are accepted."""
    return TrainerOption(accepts=_one_of(None, *defaults), because=because, hint=hint)


def _number_from(minimum: int) -> Callable[[object], bool]:
    return lambda value: value is None or (isinstance(value, int | float) and value >= minimum)


_CLOCK = re.compile(r"\d+:\d\d?:\d\d?:\d\d?")


def _is_time(value: object) -> bool:
    """DD:HH:MM:SS, or a mapping such as {minutes: 5}, as the trainer reads them."""
    return (
        value is None
        or isinstance(value, timedelta | Mapping)
        or (isinstance(value, str) and _CLOCK.fullmatch(value) is not None)
    )


def _is_interval(value: object) -> bool:
    return value > 0 if isinstance(value, int | float) else _is_time(value)


def _class_paths(value: object) -> list[str]:
    """What an option names by `class_path`, alone or in a list."""
    entries = cast("list[object]", value if isinstance(value, list) else [value])
    paths = [each.get("class_path") for each in entries if isinstance(each, Mapping)]
    return [path for path in paths if isinstance(path, str)]


def _classes(value: object) -> list[type]:
    return [import_object(path) for path in _class_paths(value)]


def _are_environments(value: object) -> bool:
    found = _classes(value)
    return bool(found) and all(issubclass(each, ClusterEnvironment) for each in found)


_NO_COMMAND = "would change nothing"
_LEAVE_OUT = "leave it out"
_OWN_WAYS = (
    callbacks.Checkpoint,
    callbacks.BatchSizeFinder,
    callbacks.GradientAccumulationScheduler,
    callbacks.LearningRateFinder,
    callbacks.StochasticWeightAveraging,
    callbacks.WeightAveraging,
)
"""Callbacks that save, average or accumulate by themselves."""

TRAINER_OPTIONS: dict[str, TrainerOption] = {
    "accelerator": TrainerOption(
        effect="`auto`, `cpu`, `gpu`, `cuda` or `mps`",
        accepts=_one_of("auto", "cpu", "gpu", "cuda", "mps"),
        because="is not a device that the strategies know",
        hint="use auto, cpu, gpu, cuda or mps",
    ),
    "strategy": _refused("auto", because="does not know the framework's checkpoints", hint="set strategy.name instead"),
    "devices": TrainerOption(effect="how many devices of each node, or a list of GPUs"),
    "num_nodes": TrainerOption(
        effect="how many nodes", accepts=_number_from(1), because="is not a number of nodes", hint="use 1 or more"
    ),
    "precision": TrainerOption(
        effect="of the matrix products: `32-true`, `bf16-mixed`, and `16-mixed` under `ddp` on GPUs. Weights, moments "
        "and averages are float32 always",
        accepts=_one_of(None, "32", "32-true", 32, "bf16", "bf16-mixed", "16", "16-mixed", 16),
        because="would keep weights and their average in a type in which small updates are lost, or that no loss here "
        "is written for",
        hint="use bf16-mixed; to gather weights in bfloat16 too, strategy.fsdp2.param_dtype bfloat16",
    ),
    "logger": TrainerOption(
        effect="`false` writes no metrics; a logger, or a list of them, takes the place of the CSV files and of W&B",
        accepts=lambda value: value is not True,
        because="would write beside the run's folder",
        hint="leave it out: CSV files, and W&B by run.wandb; or false for none",
    ),
    "callbacks": TrainerOption(
        effect="more callbacks, such as `EarlyStopping`",
        accepts=lambda value: not any(issubclass(each, _OWN_WAYS) for each in _classes(value)),
        because="saves, averages or accumulates in a way that a resumed run does not know of",
        hint="use checkpoint, model.init_args.ema_decay and data.global_batch",
    ),
    "fast_dev_run": TrainerOption(
        effect="`true`, or a number of batches: trains and validates on so many, from the initial weights, as a trial; "
        "nothing is written to the run's folder",
        accepts=_number_from(0),
        because="is not a number of batches",
        hint="use true, or 1 or more",
    ),
    "max_epochs": TrainerOption(
        effect="ends the run after so many epochs, and a schedule with them. Without it and `max_steps` a run has no "
        "end, which only a constant rate allows",
        accepts=lambda value: value is None or value == -1 or _number_from(1)(value),
        because="is not a number of epochs",
        hint="use 1 or more, or -1 for no end",
    ),
    "min_epochs": TrainerOption(
        effect="epochs that are made even if a callback or `max_time` asks to stop",
        accepts=_number_from(0),
        because="is not a number of epochs",
        hint="use 0 or more, or leave it out",
    ),
    "max_steps": TrainerOption(
        effect="ends the run after so many optimizer steps, those of earlier starts included",
        accepts=lambda value: value is None or value == -1 or _number_from(1)(value),
        because="is not a number of steps",
        hint="use 1 or more, or -1 to let max_epochs end it",
    ),
    "min_steps": TrainerOption(
        effect="optimizer steps that are made even if a callback or `max_time` asks to stop",
        accepts=_number_from(0),
        because="is not a number of steps",
        hint="use 0 or more, or leave it out",
    ),
    "max_time": TrainerOption(
        effect="`DD:HH:MM:SS`: ends training after so much time, that of the run's earlier starts up to the checkpoint "
        "included; a start says how much is left",
        accepts=_is_time,
        because="is not a time",
        hint="use DD:HH:MM:SS, such as 00:01:30:00 for an hour and a half",
    ),
    "limit_train_batches": TrainerOption(
        effect="micro-batches of a process in an epoch of the trainer, or a share of the set's; the next epoch goes on "
        "with the samples that come next",
        accepts=lambda value: value is None or (isinstance(value, int | float) and value > 0),
        because="would train on nothing",
        hint="use 1 or more batches, or a share above 0.0",
    ),
    "limit_val_batches": TrainerOption(
        effect="batches of a validation, or a share of them; 0 makes none. `data.validation_samples` takes instead "
        "samples of all classes",
        accepts=_number_from(0),
        because="is not a number of batches",
        hint="use 0 for no validation, or 1 or more",
    ),
    "limit_test_batches": _refused(1.0, because=_NO_COMMAND, hint=_LEAVE_OUT),
    "limit_predict_batches": _refused(1.0, because=_NO_COMMAND, hint=_LEAVE_OUT),
    "overfit_batches": _refused(
        0.0,
        0,
        because="would not repeat any batch: the order of the samples goes on from epoch to epoch",
        hint="make a set of a few images by `framework shards images`, and train on it",
    ),
    "val_check_interval": TrainerOption(
        effect="micro-batches between validations, over all epochs (`accumulate_grad_batches` are a step); a share of "
        "an epoch with `check_val_every_n_epoch`; or a time, `DD:HH:MM:SS`",
        accepts=_is_interval,
        because="is not an interval",
        hint="use 1 or more micro-batches, or DD:HH:MM:SS, or limit_val_batches 0 for no validation",
    ),
    "check_val_every_n_epoch": TrainerOption(
        effect="epochs between validations; by default (`null`) `val_check_interval` counts over all epochs",
        accepts=_number_from(1),
        because="is not a number of epochs",
        hint="use 1 or more, or limit_val_batches 0 for no validation",
    ),
    "num_sanity_val_steps": TrainerOption(
        effect="batches that are validated before training starts; 0 by default, -1 for all",
        accepts=_number_from(-1),
        because="is not a number of batches",
        hint="use 0 or more, or -1 for all",
    ),
    "log_every_n_steps": TrainerOption(
        effect="optimizer steps between rows of the metrics; 0 for none",
        accepts=_number_from(0),
        because="is not a number of steps",
        hint="use 1 or more, or 0 for no rows",
    ),
    "enable_checkpointing": _refused(
        True,
        because="would leave nothing to go on from",
        hint="set checkpoint.every_n_steps above trainer.max_steps to have one, at the end",
    ),
    "enable_progress_bar": TrainerOption(effect="`false` for no bar"),
    "enable_model_summary": TrainerOption(effect="`false` for no list of the model's parts before training"),
    "accumulate_grad_batches": TrainerOption(
        effect="micro-batches of an optimizer step; follows from `data.global_batch` where that is given",
        accepts=_number_from(1),
        because="is not a number of micro-batches",
        hint="use 1 or more",
    ),
    "gradient_clip_val": TrainerOption(
        effect="the largest norm of the whole gradient; larger ones are scaled down to it",
        accepts=_number_from(0),
        because="is not a norm",
        hint="use a positive number, or leave it out",
    ),
    "gradient_clip_algorithm": TrainerOption(
        effect="`norm`; or `value`, which clips every value, under `ddp`",
        accepts=_one_of(None, "norm", "value"),
        because="is not a way to clip",
        hint="use norm or value",
    ),
    "deterministic": TrainerOption(effect="`true` or `warn`: torch's deterministic algorithms, which may be slower"),
    "benchmark": TrainerOption(effect="`true` lets cuDNN try its algorithms"),
    "inference_mode": _refused(
        False,
        because="makes tensors in validation that training cannot use again",
        hint="leave it out: no_grad is used",
    ),
    "use_distributed_sampler": _refused(
        False, because="would put the loader's order of samples into another one", hint="leave it out"
    ),
    "profiler": TrainerOption(
        effect="`simple`, `advanced` or `pytorch`: what takes the time, at the end",
        accepts=lambda value: not isinstance(value, str) or value in ("simple", "advanced", "pytorch"),
        because="is not a profiler that runs here",
        hint="use simple, advanced or pytorch",
    ),
    "detect_anomaly": TrainerOption(effect="`true` names the operation whose gradient is not a number; slow"),
    "barebones": _refused(
        False,
        because="forbids checkpoints and metrics",
        hint="use `framework bench training`, which compares the loop with a bare one",
    ),
    "plugins": TrainerOption(
        effect="cluster environments",
        accepts=lambda value: value is None or _are_environments(value),
        because="would take the place of what the strategy brings with it",
        hint="set trainer.precision, strategy and checkpoint; cluster environments alone can be given",
    ),
    "sync_batchnorm": TrainerOption(effect="for a model of your own with batch norms, under `ddp`"),
    "reload_dataloaders_every_n_epochs": _refused(
        0, because="would read the same samples in the same order", hint="leave it out; every epoch has its own order"
    ),
    "default_root_dir": _refused(because="is not where a run is kept", hint="set run.dir instead"),
    "enable_autolog_hparams": _refused(True, because=_NO_COMMAND, hint="leave it out: a run's recipe is always kept"),
    "model_registry": _refused(because=_NO_COMMAND, hint="use `framework export`"),
}
"""By name, in Lightning's order."""


def described(option: TrainerOption) -> str:
    """What an option does here, or why it is refused, as the documents and `--help` say it."""
    return option.effect or f"refused: it {option.because}; {option.hint}"


def refuses(option: TrainerOption) -> Callable[[str], bool]:
    """Which of a type's choices an option does not take, as texts; numbers stand among them as they are written."""
    return lambda choice: not option.accepts(int(choice) if choice.isdecimal() else choice)


def check_trainer_options(trainer: Mapping[str, object], *, strategy: str) -> None:
    """Refuses what the `trainer` section of a recipe asks for in vain.

    Args:
        trainer: the section as it was parsed.
        strategy: `strategy.name`.

    Raises:
        ConfigError: names the first such option and its value.
    """
    for name, value in trainer.items():
        option = TRAINER_OPTIONS.get(name)
        if option is not None and not option.accepts(value):
            shown = ", ".join(_class_paths(value)) or value
            raise ConfigError(f"trainer.{name} {shown} {option.because}", hint=option.hint)
    for least, most in (("min_steps", "max_steps"), ("min_epochs", "max_epochs")):
        lower, upper = trainer.get(least), trainer.get(most)
        if isinstance(lower, int) and isinstance(upper, int) and 0 <= upper < lower:
            raise ConfigError(f"trainer.{least} {lower} and trainer.{most} {upper}", hint=f"let {least} be the smaller")
    share = trainer.get("val_check_interval")
    if isinstance(share, float) and trainer.get("check_val_every_n_epoch") is None:
        problem = f"trainer.val_check_interval {share} is a share of an epoch, and is counted over all epochs"
        raise ConfigError(problem, hint="give micro-batches, or trainer.check_val_every_n_epoch 1 too")
    if strategy == WHOLE:
        return
    for name, values, instead in (
        ("precision", ("16", "16-mixed", 16), "bf16-mixed"),
        ("gradient_clip_algorithm", ("value",), "norm"),
        ("sync_batchnorm", (True,), "strategy.name ddp"),
    ):
        if trainer.get(name) in values:
            raise ConfigError(f"trainer.{name} {trainer[name]} under strategy.name {strategy}", hint=f"use {instead}")
