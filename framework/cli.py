"""The command `framework`: the one place where data, module and strategy meet."""

import logging
import re
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, get_args

from jsonargparse import auto_cli
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from framework import agents, commands, runs, shard_commands
from framework.attribute import attribute
from framework.attribute_logs import attribute_logs
from framework.bench import bench_data
from framework.bench_attribution import bench_attribution
from framework.bench_blame import bench_blame
from framework.bench_repair import bench_repair
from framework.bench_training import bench_training
from framework.compare import compare
from framework.data.bad_samples import BadSamples
from framework.data.module import ShardDataModule
from framework.errors import CheckpointError, ConfigError, FrameworkError, Preempted
from framework.export import export
from framework.files import written_whole
from framework.optimize import optimize
from framework.plan import PlanOptions, run_of_recipe, show_plan
from framework.report.command import report
from framework.tracking.run import RECIPE, RunConfig, finish_loggers, keep_wandb_id, make_loggers, saved_wandb_id
from framework.tracking.secrets import refuse_removed, scrubbed, scrubbed_text, scrubbed_yaml
from framework.training.callbacks.attempts import Attempts
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.callbacks.curves import Curves
from framework.training.callbacks.guards import GuardConfig, make_guards
from framework.training.callbacks.histograms import Histograms
from framework.training.callbacks.manifests import ManifestArtifacts
from framework.training.callbacks.progress import StepProgressBar
from framework.training.callbacks.random_state import RandomState
from framework.training.callbacks.throughput import Throughput
from framework.training.checkpoint.choose import refuse_existing
from framework.training.checkpoint.layout import FOLDER, Manifest, list_checkpoints
from framework.training.checkpoint.strategy import DirectoryCheckpoints
from framework.training.strategies import StrategyConfig, StrategyName, make_strategy

COMMANDS = {
    "fit": "train from a recipe, or go on with a run",
    "validate": "losses of a run's newest checkpoint on the validation set",
    "sample": "images from a checkpoint",
    "export": "a checkpoint's weights as safetensors, for sampling, sharing or a new run",
    "evaluate": "distances between samples and real images",
    "compare": "the method against the rows it is compared with",
    "plan": "memory, operations and communication of a recipe on given devices, before anything is started",
    "runs": "the runs in a folder: ls, show, sync (sends W&B's offline files)",
    "report": "one HTML page of a run: curves, samples, speed, restarts, recipe",
    "agents": "graphs of language-model agents: run (on tasks, to traces), check",
    "attribute": "blame: which agents made the errors of recorded runs",
    "attribute-logs": "blame for logs of other frameworks, which a local model reads",
    "optimize": "better prompts for the agents of a graph",
    "bench": "speed of loader, training and attribution against bare ones; blame and repair of planted faults",
    "shards": "make, index, check and show shards: images, imagenet, jsonl, hf, ...",
}
FUNCTIONS: dict[str, Any] = {
    "sample": commands.sample,
    "export": export,
    "evaluate": commands.evaluate,
    "compare": compare,
    "runs": {"ls": runs.ls, "show": runs.show, "sync": runs.sync},
    "report": report,
    "agents": {"run": agents.run, "check": agents.check},
    "attribute": attribute,
    "attribute-logs": attribute_logs,
    "optimize": optimize,
    "bench": {
        "data": bench_data,
        "training": bench_training,
        "attribution": bench_attribution,
        "blame": bench_blame,
        "repair": bench_repair,
    },
    "shards": {
        "images": shard_commands.images,
        "imagenet": shard_commands.imagenet,
        "jsonl": shard_commands.jsonl,
        "hf": shard_commands.hf,
        "multiwoz": shard_commands.multiwoz,
        "digits": shard_commands.digits,
        "microworld": shard_commands.microworld,
        "microworld-tasks": shard_commands.microworld_tasks,
        "index": shard_commands.index,
        "check": shard_commands.check,
        "stats": shard_commands.stats,
        "peek": shard_commands.peek,
    },
}
DESCRIPTION = (
    "Train pixel-space autoregressive image generators, sample from them and measure them; run systems of "
    "language-model agents, blame them and improve their prompts."
)
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
    """Shows the framework's messages, and silences what a user of this command can do nothing about."""
    for message in (
        ".*isinstance.treespec, LeafSpec.*",  # lightning 2.6 on torch 2.13
        "Found .* module.s. in eval mode at the start of training",  # the averaged weights
        ".*does not have many workers.*",  # set by data.num_workers
        ".*sync_dist=True.. when logging on epoch level",  # every process validates on all samples
        "FSDP2-wrapped module .* returned a view tensor",  # nothing is done to it in place
        ".*distributed.nn.functional.all_gather is deprecated",  # lightning 2.6 on torch 2.13
    ):
        warnings.filterwarnings("ignore", message=message)
    disable_progress_bar()
    ours = logging.getLogger("framework")
    if not any(isinstance(handler, ConsoleHandler) for handler in ours.handlers):
        ours.addHandler(ConsoleHandler())
        ours.setLevel(logging.INFO)
    # Of what is loaded our own line tells; Lightning's is also there when there was nothing.
    unwanted = ("litlogger", "Restoring states from", "Restored all states from")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: not any(words in record.getMessage() for words in unwanted)
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
        with written_whole(path) as file:
            file.write(scrubbed_yaml(self.parser.dump(self.config)).encode())
        for logger in trainer.loggers:
            logger.log_hyperparams(scrubbed(self.config.as_dict()))


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
                # Weights gathered in inference mode could not be gathered into again outside of it.
                "inference_mode": False,
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
        refuse_removed(self.config.as_dict())

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(RunConfig, "run")
        parser.add_lightning_class_args(Checkpoints, "checkpoint")
        parser.add_class_arguments(StrategyConfig, "strategy")
        parser.add_class_arguments(GuardConfig, "guards")
        parser.add_argument(
            "--resume",
            type=str,
            default="auto",
            help="what `fit` does with the run's checkpoints: auto goes on from the newest good one if there is any, "
            "must fails without one, never refuses a folder that has some; or a path: a checkpoint or another run's "
            "folder to start from, until the run has checkpoints of its own",
        )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        given = self._get(self.config_init, "trainer")
        if given["default_root_dir"] is not None:
            raise ConfigError(f"trainer.default_root_dir {given['default_root_dir']}", mend="set run.dir instead")
        if given["strategy"] != "auto":
            raise ConfigError(f"trainer.strategy {given['strategy']}", mend="set strategy.name instead")
        run: RunConfig = self._get(self.config_init, "run")
        fitting = self.subcommand == "fit"
        if fitting:
            _recall_wandb_id(Path(run.dir))
        logger = given["logger"] if given["logger"] is not None else (make_loggers(run) if fitting else False)
        guards = make_guards(self._get(self.config_init, "guards"))
        self.trainer_defaults["callbacks"] = [*guards, Throughput(), RandomState(), BadSamples(), Curves()]
        if fitting:
            self.trainer_defaults["callbacks"].append(Attempts())
            if run.histogram_every_n_steps:
                self.trainer_defaults["callbacks"].append(Histograms(run.histogram_every_n_steps))
            if run.artifacts:
                self.trainer_defaults["callbacks"].append(ManifestArtifacts())
        if given["enable_progress_bar"] is not False:
            self.trainer_defaults["callbacks"].append(StepProgressBar())
        if not fitting:
            self.save_config_callback = None
        strategy = make_strategy(
            self._get(self.config_init, "strategy"),
            **{name: given[name] for name in ("accelerator", "devices", "num_nodes")},
        )
        return super().instantiate_trainer(default_root_dir=run.dir, logger=logger, strategy=strategy, **kwargs)

    def fit(self, model: Any, datamodule: ShardDataModule) -> None:
        run_dir, strategy = Path(self.trainer.default_root_dir), self.trainer.strategy
        assert isinstance(strategy, DirectoryCheckpoints)
        resume = self._get(self.config, "resume")
        assert self.subcommand is not None
        strategy.recipe = scrubbed_yaml(self._parser(self.subcommand).dump(self.config[self.subcommand]))
        strategy.start_anew = resume == "auto"
        try:
            self.trainer.fit(model, datamodule=datamodule, ckpt_path=_start(run_dir, resume), weights_only=True)
        except BaseException as error:
            finish_loggers(self.trainer.loggers, exit_code=1, preempted=isinstance(error, Preempted))
            raise
        finish_loggers(self.trainer.loggers)
        if self.trainer.is_global_zero:
            told = "recipe, checkpoints, metrics and curves are there"
            console.print(f"{run_dir}: step {self.trainer.global_step}; {told}")

    def validate(self, model: Any, datamodule: ShardDataModule) -> None:
        self.trainer.validate(model, datamodule=datamodule, ckpt_path=self.trainer.default_root_dir, weights_only=True)


def _start(run_dir: Path, resume: str) -> Path | None:
    """What to load from: a checkpoint, a run's folder for its newest one, or nothing."""
    if resume == "never":
        refuse_existing(run_dir)
        return None
    if resume in ("auto", "must"):
        return run_dir
    source = Path(resume)
    if not source.exists():
        raise ConfigError(f"--resume {resume}", mend="give auto, must, never, or the path of a checkpoint or a run")
    own = source.resolve().is_relative_to(run_dir.resolve())
    return run_dir if list_checkpoints(run_dir / FOLDER) and not own else source


def _recall_wandb_id(run_dir: Path) -> None:
    """Takes the W&B run's id from the newest checkpoint where the folder has lost it."""
    if saved_wandb_id(run_dir) is not None:
        return
    for checkpoint in reversed(list_checkpoints(run_dir / FOLDER)):
        with suppress(CheckpointError):
            if identity := Manifest.read(checkpoint).wandb_id:
                keep_wandb_id(run_dir, identity)
                return


class ConsoleHandler(logging.Handler):
    """The framework's own messages, for the user to see."""

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else None
        console.print(scrubbed_text(record.getMessage()), style=style, markup=False)


class PlanCLI(TrainingCLI):
    """`plan`: parses a recipe and every option of `fit`, without opening data or making anything."""

    def __init__(self, argv: Sequence[str]) -> None:
        names = get_args(StrategyName)
        short = [
            "--strategy.name" if word == "--strategy" and following in names else word
            for word, following in zip(argv, [*argv[1:], ""], strict=True)
        ]
        LightningCLI.__init__(
            self,
            datamodule_class=ShardDataModule,
            seed_everything_default=0,
            parser_class=OneLineParser,
            parser_kwargs={"prog": "framework plan", "description": COMMANDS["plan"].capitalize() + "."},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=short,
            run=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_class_arguments(PlanOptions)

    def instantiate_classes(self) -> None:
        recipe = self.config.as_dict()
        options = PlanOptions(**{field.name: recipe[field.name] for field in fields(PlanOptions)})
        show_plan(run_of_recipe(recipe, options), options)


def _run(command: str, options: list[str]) -> None:
    if command == "plan":
        PlanCLI(options)
        return
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
        console.print(f"error: {scrubbed_text(' '.join(message.split()))}", style="red", markup=False)
        sys.exit(code)


if __name__ == "__main__":
    main()
