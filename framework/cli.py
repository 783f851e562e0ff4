"""The command `framework`: the one place where data, module and strategy meet."""

import logging
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import auto_cli
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.console import Console

from framework import commands, shard_commands
from framework.bench import bench_data
from framework.compare import compare
from framework.data.bad_samples import BadSamples
from framework.data.module import ShardDataModule
from framework.errors import ConfigError, FrameworkError
from framework.tracking.run import RECIPE, RunConfig, finish_loggers, make_loggers
from framework.training.callbacks.curves import Curves
from framework.training.callbacks.finite import FiniteGuard
from framework.training.callbacks.progress import StepProgressBar
from framework.training.callbacks.random_state import RandomState
from framework.training.callbacks.throughput import Throughput
from framework.training.checkpoint import AtomicCheckpointIO, Checkpoints, Resume, choose_checkpoint

COMMANDS = {
    "fit": "train from a recipe, or go on with a run",
    "validate": "losses of a run's newest checkpoint on the validation set",
    "sample": "images from a checkpoint",
    "evaluate": "distances between samples and real images",
    "compare": "the method against the rows it is compared with",
    "bench": "speed of the data loader against decoding alone and against webdataset",
    "shards": "make, index, check and show shards: images, imagenet, jsonl, hf, ...",
}
FUNCTIONS: dict[str, Any] = {
    "sample": commands.sample,
    "evaluate": commands.evaluate,
    "compare": compare,
    "bench": {"data": bench_data},
    "shards": {
        "images": shard_commands.images,
        "imagenet": shard_commands.imagenet,
        "jsonl": shard_commands.jsonl,
        "hf": shard_commands.hf,
        "digits": shard_commands.digits,
        "index": shard_commands.index,
        "check": shard_commands.check,
        "stats": shard_commands.stats,
        "peek": shard_commands.peek,
    },
}
DESCRIPTION = "Train pixel-space autoregressive image generators, sample from them and measure them."
USAGE = "usage: framework COMMAND [options]\n\n{}\n\n'framework COMMAND --help' explains a command's options."

console = Console(stderr=True, highlight=False, soft_wrap=True)


class OneLineParser(LightningArgumentParser):
    """A parser whose errors are one line and whose yes-or-no options need no value: `--strict` is `--strict true`."""

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("type") is bool:
            kwargs |= {"nargs": "?", "const": True}
        return super().add_argument(*args, **kwargs)

    def instantiate_classes(self, cfg: Any, **kwargs: Any) -> Any:
        # Lightning 2.6 calls jsonargparse by the name that it has deprecated.
        return self.instantiate(cfg, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        self.exit(2, f"error: {_first_cause(message)} (see: {self.prog.replace(' [options]', '')} --help)\n")


def _first_cause(message: str) -> str:
    """One line of a parser's message: where it lists a cause for each type that a value could have, the first."""
    message = message.partition("Given value type:")[0]
    _, listed, causes = message.partition("Errors:")
    if listed:
        message = re.split(r"\n\s*- ", causes.strip().removeprefix("- "))[0]
    return " ".join(message.split())


def _mendable(error: BaseException | None) -> tuple[str | None, int]:
    """Message and exit code of what a user can mend; (None, 1) for a bug."""
    if isinstance(error, MisconfigurationException):
        return str(error), 2
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}", 2
    # The parser wraps what constructors raise.
    while error is not None and not isinstance(error, FrameworkError):
        error = error.__cause__ or error.__context__
    return (None, 1) if error is None else (str(error), error.exit_code)


def _quiet() -> None:
    """Silence what a user of this command can do nothing about."""
    for message in (
        ".*isinstance.treespec, LeafSpec.*",  # lightning 2.6 on torch 2.13
        "Found .* module.s. in eval mode at the start of training",  # the averaged weights
        ".*does not have many workers.*",  # set by data.num_workers
    ):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "litlogger" not in record.getMessage()
    )


class SaveRecipe(SaveConfigCallback):
    """Saves the resolved recipe as `recipe.yaml` in the run's folder and hands it to the loggers.

    Only when training starts: a recipe that a checkpoint refuses does not replace the one that made it.
    """

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        pass

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            self.save_config(trainer, pl_module, "fit")

    def save_config(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        path = Path(trainer.default_root_dir) / RECIPE
        path.parent.mkdir(parents=True, exist_ok=True)
        self.parser.save(self.config, path, overwrite=True)
        for logger in trainer.loggers:
            logger.log_hyperparams(self.config.as_dict())


class TrainingCLI(LightningCLI):
    """`fit` and `validate`: a recipe's `run`, `model`, `data`, `trainer` and `checkpoint` sections put together."""

    def __init__(self, argv: Sequence[str]) -> None:
        super().__init__(
            datamodule_class=ShardDataModule,
            save_config_callback=SaveRecipe,
            save_config_kwargs={"save_to_log_dir": False},
            seed_everything_default=0,
            trainer_defaults={
                "max_epochs": -1,
                "num_sanity_val_steps": 0,
                "check_val_every_n_epoch": None,
                "use_distributed_sampler": False,
            },
            parser_class=OneLineParser,
            parser_kwargs={"prog": "framework", "description": DESCRIPTION}
            | {name: {"description": COMMANDS[name].capitalize() + "."} for name in self.subcommands()},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=list(argv),
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        given = {"model", "datamodule", "ckpt_path", "weights_only"}
        return {
            "fit": given | {"train_dataloaders", "val_dataloaders"},
            "validate": given | {"dataloaders", "verbose"},
        }

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(RunConfig, "run")
        parser.add_lightning_class_args(Checkpoints, "checkpoint")
        parser.add_argument(
            "--resume",
            type=Resume,
            default="auto",
            help="what `fit` does with the run's checkpoints: auto goes on from the newest good one if there is any, "
            "must fails without one, never refuses a folder that has some",
        )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        given = self._get(self.config_init, "trainer")
        if given["default_root_dir"] is not None:
            raise ConfigError(f"trainer.default_root_dir {given['default_root_dir']}", mend="set run.dir instead")
        run: RunConfig = self._get(self.config_init, "run")
        fitting = self.subcommand == "fit"
        logger = given["logger"] if given["logger"] is not None else (make_loggers(run) if fitting else False)
        self.trainer_defaults["callbacks"] = [Throughput(), FiniteGuard(), RandomState(), BadSamples(), Curves()]
        if given["enable_progress_bar"] is not False:
            self.trainer_defaults["callbacks"].append(StepProgressBar())
        plugins = [*(given["plugins"] or []), AtomicCheckpointIO()]
        if not fitting:
            self.save_config_callback = None
        return super().instantiate_trainer(default_root_dir=run.dir, logger=logger, plugins=plugins, **kwargs)

    def fit(self, model: Any, datamodule: ShardDataModule) -> None:
        run_dir = Path(self.trainer.default_root_dir)
        checkpoint, skipped = choose_checkpoint(run_dir, self._get(self.config, "resume"))
        for line in skipped:
            console.print(f"skipped {line}", style="yellow")
        if checkpoint:
            console.print(f"resuming from {checkpoint}")
        try:
            self.trainer.fit(model, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
        finally:
            finish_loggers()
        console.print(f"{run_dir}: step {self.trainer.global_step}; recipe, checkpoints, metrics and curves are there")

    def validate(self, model: Any, datamodule: ShardDataModule) -> None:
        checkpoint, _ = choose_checkpoint(Path(self.trainer.default_root_dir), "must")
        self.trainer.validate(model, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)


def _run(command: str, options: list[str]) -> None:
    if command in ("fit", "validate"):
        TrainingCLI([command, *options])
        return
    auto_cli(FUNCTIONS, args=[command, *options], prog="framework", parser_class=OneLineParser)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; exit code 2 for what the user can mend, with one line that says how."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    listing = "\n".join(f"  {name:<10}{text}" for name, text in COMMANDS.items())
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE.format(listing))
        return
    command, *options = arguments
    _quiet()
    try:
        if command not in COMMANDS:
            raise ConfigError(f"unknown command {command!r}", mend=f"use one of {', '.join(COMMANDS)}")
        _run(command, options)
    except Exception as error:
        message, code = _mendable(error)
        if message is None:
            raise
        console.print(f"error: {' '.join(message.split())}", style="red", markup=False)
        sys.exit(code)


if __name__ == "__main__":
    main()
