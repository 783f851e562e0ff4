"""The commands `fit`, `validate` and `plan`, which read recipes: where data, module and strategy meet."""

from collections.abc import Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any, cast, get_args

import yaml
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback

from framework.cli.parser import OneLineParser
from framework.cli.plan import PlanOptions, read_recipe, show_plan
from framework.cli.registry import RECIPES, methods
from framework.core.compat.lightning_compat import OpenLightningCLI
from framework.core.console import console
from framework.core.errors import CheckpointError, ConfigError, Preempted
from framework.core.imports import import_object
from framework.core.io import atomic_write
from framework.core.method import sample_unit_of
from framework.core.moved.import_paths import current_text, refuse_moved
from framework.core.text_files import read_text
from framework.data.loading.bad_samples import BadSamples
from framework.data.module import ShardDataModule
from framework.tracking.loggers import RunConfig, finish_loggers, make_loggers
from framework.tracking.run_folder import RECIPE, is_written_by_run, keep_wandb_id, saved_wandb_id
from framework.tracking.secrets import refuse_removed, scrubbed, scrubbed_yaml
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.callbacks.curves import Curves
from framework.training.callbacks.guards import GuardConfig, make_guards
from framework.training.callbacks.histograms import Histograms
from framework.training.callbacks.manifests import ManifestArtifacts
from framework.training.callbacks.progress import StepProgressBar
from framework.training.callbacks.random_state import RandomState
from framework.training.callbacks.restarts import Restarts
from framework.training.callbacks.throughput import Throughput
from framework.training.checkpoint.choose import refuse_existing
from framework.training.checkpoint.layout import FOLDER, Manifest, list_checkpoints
from framework.training.checkpoint.strategy import checkpoints_of
from framework.training.strategies.build import make_strategy
from framework.training.strategies.config import StrategyConfig, StrategyName

_DESCRIPTION = "Train what a recipe describes: a model of one of the methods, on shards."


class RecipeParser(OneLineParser, LightningArgumentParser):
    """A parser of recipes; the names in one that a run has saved are those of today."""

    def parse_path(self, path: str | PathLike[str], *args: Any, **kwargs: Any) -> Namespace:
        """The settings of a recipe.

        Args:
            path: of the file.
            *args: as jsonargparse has them.
            **kwargs: as jsonargparse has them.

        Raises:
            ConfigError: a recipe of the user's own that names what has moved.
        """
        text = read_text(path, hint="give a recipe in YAML", error=ConfigError)
        if not is_written_by_run(Path(path)):
            # What is not YAML is told of by the parser.
            with suppress(yaml.YAMLError):
                refuse_moved(yaml.safe_load(text), str(path))
        elif (current := current_text(text)) != text:
            return self.parse_string(current, str(path), *args, **kwargs)
        return super().parse_path(path, *args, **kwargs)

    def instantiate_classes(self, cfg: Any, **kwargs: Any) -> Any:
        # Lightning 2.6 calls jsonargparse by the name that it has deprecated.
        return self.instantiate(cfg, **kwargs)


class SaveRecipe(SaveConfigCallback):
    """Saves the resolved recipe as `recipe.yaml` in the run's folder and hands it to the loggers.

    Only when training starts: a recipe that a checkpoint refuses does not replace the one that made it.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        pass

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.save_config(trainer, pl_module, "fit")

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        path = Path(trainer.default_root_dir) / RECIPE
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(scrubbed_yaml(self.parser.dump(self.config)).encode())
        for logger in trainer.loggers:
            logger.log_hyperparams(scrubbed(self.config.as_dict()))


def import_modules() -> None:
    """Imports what can be trained, for `--help` to list it and for recipes to name it without its path."""
    for method in methods():
        for path in method.modules:
            import_object(path)


class TrainingCLI(OpenLightningCLI):
    """`fit` and `validate`: a recipe's `run`, `model`, `data`, `trainer` and `checkpoint` sections put together."""

    def __init__(self, argv: Sequence[str]) -> None:
        refuse_moved(list(argv), "the command line")
        import_modules()
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
            parser_class=RecipeParser,
            parser_kwargs={"prog": "framework", "description": _DESCRIPTION}
            | {name: {"description": RECIPES[name].capitalize() + "."} for name in self.subcommands()},
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

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        self.config = parser.parse_args(cast("Sequence[str] | None", args))
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
        given = self.section(self.config_init, "trainer")
        if given["default_root_dir"] is not None:
            raise ConfigError(f"trainer.default_root_dir {given['default_root_dir']}", hint="set run.dir instead")
        if given["strategy"] != "auto":
            raise ConfigError(f"trainer.strategy {given['strategy']}", hint="set strategy.name instead")
        run: RunConfig = self.section(self.config_init, "run")
        fitting = self.subcommand == "fit"
        if fitting:
            _recall_wandb_id(Path(run.dir))
        logger = given["logger"] if given["logger"] is not None else (make_loggers(run) if fitting else False)
        unit = sample_unit_of(type(self.model), methods())
        guards = make_guards(self.section(self.config_init, "guards"))
        self.trainer_defaults["callbacks"] = [*guards, Throughput(unit), RandomState(), BadSamples(), Curves()]
        if fitting:
            self.trainer_defaults["callbacks"].append(Restarts())
            if run.histogram_every_n_steps:
                self.trainer_defaults["callbacks"].append(Histograms(run.histogram_every_n_steps))
            if run.artifacts:
                self.trainer_defaults["callbacks"].append(ManifestArtifacts())
        if given["enable_progress_bar"] is not False:
            self.trainer_defaults["callbacks"].append(StepProgressBar())
        if not fitting:
            self.save_config_callback = None
        strategy = make_strategy(
            self.section(self.config_init, "strategy"),
            **{name: given[name] for name in ("accelerator", "devices", "num_nodes")},
        )
        return super().instantiate_trainer(default_root_dir=run.dir, logger=logger, strategy=strategy, **kwargs)

    def fit(self, model: LightningModule, datamodule: ShardDataModule) -> None:
        run_dir, strategy = Path(self.trainer.default_root_dir), checkpoints_of(self.trainer.strategy)
        resume = self.section(self.config, "resume")
        assert self.subcommand is not None
        strategy.recipe = scrubbed_yaml(self.parser_of(self.subcommand).dump(self.config[self.subcommand]))
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

    def validate(self, model: LightningModule, datamodule: ShardDataModule) -> None:
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
        raise ConfigError(f"--resume {resume}", hint="give auto, must, never, or the path of a checkpoint or a run")
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


class PlanCLI(TrainingCLI):
    """`plan`: parses a recipe and every option of `fit`, without opening data or making anything."""

    def __init__(self, argv: Sequence[str]) -> None:
        refuse_moved(list(argv), "the command line")
        import_modules()
        names = get_args(StrategyName)
        short = [
            "--strategy.name" if word == "--strategy" and following in names else word
            for word, following in zip(argv, [*argv[1:], ""], strict=True)
        ]
        LightningCLI.__init__(
            self,
            datamodule_class=ShardDataModule,
            seed_everything_default=0,
            parser_class=RecipeParser,
            parser_kwargs={"prog": "framework plan", "description": RECIPES["plan"].capitalize() + "."},
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
        options = PlanOptions.of_recipe(recipe)
        show_plan(read_recipe(recipe, options, methods()), options)
