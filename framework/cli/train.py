"""The commands `fit` and `validate`: where data, module and strategy of a recipe meet."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, SaveConfigCallback

from framework.cli.parser import GIVEN, OneLineParser, settings_of
from framework.cli.registry import RECIPES, methods
from framework.core.compat.lightning_compat import OpenLightningCLI
from framework.core.console import console
from framework.core.errors import CheckpointError, ConfigError, Preempted
from framework.core.imports import import_object
from framework.core.io import atomic_write
from framework.core.method import sample_unit_of
from framework.core.moved.import_paths import current_text, refuse_moved
from framework.core.settings.mistakes import Given, find_empty, find_misfit
from framework.core.settings.yaml_keys import read_keys
from framework.core.text_files import parse_yaml, read_text
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
from framework.training.callbacks.preemption import Preemption
from framework.training.callbacks.random_state import RandomState
from framework.training.callbacks.restarts import Restarts
from framework.training.callbacks.step_metrics import StepMetrics
from framework.training.callbacks.throughput import Throughput
from framework.training.checkpoint.choose import refuse_existing
from framework.training.checkpoint.layout import FOLDER, Manifest, list_checkpoints
from framework.training.checkpoint.strategy import checkpoints_of
from framework.training.display.announcements import ModelParts, OutOfReach, TimeLimit, TimeNeeded
from framework.training.display.progress import StepProgressBar
from framework.training.strategies.build import make_strategy
from framework.training.strategies.config import StrategyConfig
from framework.training.trainer import RecipeTrainer
from framework.training.trainer_options import TRAINER_OPTIONS, check_trainer_options, refuses

TRAINER_DEFAULTS: dict[str, Any] = {
    "max_epochs": -1,
    "num_sanity_val_steps": 0,
    "check_val_every_n_epoch": None,
    "use_distributed_sampler": False,
    # Weights gathered in inference mode could not be gathered into again outside of it.
    "inference_mode": False,
}
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
            ConfigError: not a recipe; a key that is there twice; or one of the user's own that names what has moved.
        """
        file, given = Path(path), GIVEN.get()
        text = read_text(file, hint="give a recipe in YAML", error=ConfigError)
        content = parse_yaml(text, str(file), hint="give a recipe in YAML")
        GIVEN.set(replace(given, files={**given.files, file: read_keys(text)}))
        if not isinstance(content, dict):
            hint = "give sections such as run, data, model and trainer"
            raise ConfigError(f"{file} holds {'nothing' if content is None else 'no sections'}", hint=hint)
        model = content.get("model")
        _import_short_names([model.get("class_path") if isinstance(model, dict) else model])
        if not is_written_by_run(file):
            refuse_moved(content, str(path))
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


def _import_short_names(named: Iterable[object]) -> None:
    """Imports what can be trained if a model is named without its path; by its path it is imported alone."""
    if any(isinstance(name, str) and "." not in name for name in named):
        import_modules()


def _named_models(words: Sequence[str]) -> Iterator[str]:
    """What a command line names as its model; a name without a path too where help is asked for."""
    for word, following in pairwise([*words, ""]):
        option, _, value = word.partition("=")
        if option in ("--model", "--model.class_path"):
            yield value or following
        elif option in ("-h", "--help") or option.endswith(".help"):
            yield "help"


class TrainingCLI(OpenLightningCLI):
    """`fit` and `validate`: a recipe's `run`, `model`, `data`, `trainer` and `checkpoint` sections put together."""

    _trial: TemporaryDirectory[str] | None = None
    """The folder of a `fast_dev_run`, in place of the run's."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._prepare(*argv)
        super().__init__(
            datamodule_class=ShardDataModule,
            save_config_callback=SaveRecipe,
            save_config_kwargs={"save_to_log_dir": False},
            trainer_class=RecipeTrainer,
            seed_everything_default=0,
            trainer_defaults=dict(TRAINER_DEFAULTS),
            parser_class=RecipeParser,
            parser_kwargs={"prog": "framework", "description": _DESCRIPTION}
            | {name: {"description": RECIPES[name].capitalize() + "."} for name in self.subcommands()},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=list(argv),
        )

    @staticmethod
    def _prepare(command: str, *words: str) -> None:
        refuse_moved(list(words), "the command line")
        _import_short_names(_named_models(words))
        classes = tuple(path for method in methods() for path in method.class_paths)
        refused = {f"trainer.{name}": refuses(option) for name, option in TRAINER_OPTIONS.items()}
        GIVEN.set(Given(command=command, words=words, classes=classes, refused=refused, reads_recipes=True))

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """What options each leaves out of its method's; only the given one's, where it is one, for options take time."""
        given = {"model", "datamodule", "ckpt_path", "weights_only"}
        both = {
            "fit": given | {"train_dataloaders", "val_dataloaders"},
            "validate": given | {"dataloaders", "verbose"},
        }
        command = GIVEN.get().command
        return {command: both[command]} if command in both else both

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        self.config = parser.parse_args(cast("Sequence[str] | None", args))
        given = self.config.get(str(self.config.get("subcommand")), self.config)
        trainer = given["trainer"]
        for name in ("limit_train_batches", "limit_val_batches"):
            if isinstance(trainer[name], float):
                # The parser has a type of its own for a share.
                trainer[name] = float(trainer[name])
        refuse_removed(self.config.as_dict())
        seed = given["seed_everything"]
        if not isinstance(seed, bool) and not 0 <= seed < 2**32:
            raise ConfigError(f"seed_everything is {seed}", hint=f"give a number from 0 to {2**32 - 1}")

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

    def before_instantiate_classes(self) -> None:
        if misfit := find_misfit(self._defaults(), GIVEN.get()):
            raise misfit
        strategy = self.section(self.config, "strategy")["name"]
        check_trainer_options(self.section(self.config, "trainer").as_dict(), strategy=strategy)

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except (TypeError, ValueError) as error:
            # The parser lets a null through, and in a class's arguments a value in place of a group.
            path = self.section(self.config, "model")["class_path"]
            of_class = RecipeParser()
            of_class.add_class_arguments(import_object(path))
            below = ("model", "init_args")
            given, known = GIVEN.get(), settings_of(of_class)
            mistake = find_misfit(known, given, below=below) or find_empty(known, given, below=below)
            if mistake := mistake or find_empty(self._defaults(), given):
                raise mistake from error
            raise

    def _defaults(self) -> dict[str, object]:
        return settings_of(self.parser if self.subcommand is None else self.parser_of(self.subcommand))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        given = self.section(self.config_init, "trainer")
        run: RunConfig = self.section(self.config_init, "run")
        fitting = self.subcommand == "fit"
        if fitting and given["fast_dev_run"]:
            self._trial = TemporaryDirectory(prefix="framework-trial-")
        if fitting and self._trial is None:
            _recall_wandb_id(Path(run.dir))
        logger = given["logger"]
        if logger is None:
            logger = make_loggers(run) if fitting and self._trial is None else False
        self.trainer_defaults["callbacks"] = self._callbacks(
            run, fitting=fitting, progress=given["enable_progress_bar"]
        )
        if fitting and given["enable_model_summary"] is not False:
            self.trainer_defaults["callbacks"].append(ModelParts())
        if not fitting:
            self.save_config_callback = None
        strategy = make_strategy(
            self.section(self.config_init, "strategy"),
            **{name: given[name] for name in ("accelerator", "devices", "num_nodes")},
        )
        trainer = super().instantiate_trainer(
            default_root_dir=run.dir if self._trial is None else self._trial.name,
            logger=logger,
            strategy=strategy,
            enable_model_summary=False,
            **kwargs,
        )
        if self._trial is not None:
            kept = [each for each in trainer.callbacks if not isinstance(each, Checkpoints | Preemption)]  # type: ignore[attr-defined]
            trainer.callbacks = kept  # type: ignore[attr-defined]
        return trainer

    def _callbacks(self, run: RunConfig, *, fitting: bool, progress: bool | None) -> list[Callback]:
        guards = make_guards(self.section(self.config_init, "guards"))
        unit = sample_unit_of(type(self.model), methods())
        callbacks = [StepMetrics(), *guards, Throughput(unit), RandomState(), BadSamples(), Curves()]
        if fitting:
            callbacks += [Restarts(), TimeLimit(), TimeNeeded()]
            if self._trial is None:
                callbacks.append(OutOfReach())
            if run.histogram_every_n_steps:
                callbacks.append(Histograms(run.histogram_every_n_steps))
            if run.artifacts:
                callbacks.append(ManifestArtifacts())
        if progress is not False:
            callbacks.append(StepProgressBar())
        return callbacks

    def fit(self, model: LightningModule, datamodule: ShardDataModule) -> None:
        if self._trial is not None:
            self._try(model, datamodule, self._trial)
            return
        run_dir, strategy = Path(self.trainer.default_root_dir), checkpoints_of(self.trainer.strategy)
        resume = self.section(self.config_init, "resume")
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
            before = strategy.choice.manifest if strategy.choice else None
            if before is not None and before.step == self.trainer.global_step:
                console.print("no step was left to train: raise trainer.max_steps or max_epochs to go on")
            told = "recipe, checkpoints, metrics and curves are there"
            console.print(f"{run_dir}: step {self.trainer.global_step}; {told}")

    def _try(self, model: LightningModule, datamodule: ShardDataModule, folder: TemporaryDirectory[str]) -> None:
        """A few batches in a folder of their own, which goes with them."""
        with folder:
            self.trainer.fit(model, datamodule=datamodule)
        if self.trainer.is_global_zero:
            told = f"{self.trainer.global_step} steps were tried; nothing is left of them"
            console.print(f"{told}: leave trainer.fast_dev_run out to train")

    def validate(self, model: LightningModule, datamodule: ShardDataModule) -> None:
        if (resume := self.section(self.config, "resume")) != "auto":
            hint = "leave it out: the newest checkpoint in run.dir is validated"
            raise ConfigError(f"--resume {resume} of validate", hint=hint)
        self.trainer.validate(model, datamodule=datamodule, ckpt_path=self.trainer.default_root_dir, weights_only=True)


def _start(run_dir: Path, resume: str) -> Path | None:
    """What to load from: a checkpoint, a run's folder for its newest one, or nothing."""
    if resume == "never":
        refuse_existing(run_dir)
        return None
    if resume == "must" and not list_checkpoints(run_dir / FOLDER):
        raise CheckpointError(f"no checkpoint in {run_dir / FOLDER}", hint="check --run.dir, or use --resume auto")
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
