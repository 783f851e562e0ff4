"""The commands `plan` and `where`, which read recipes and start nothing."""

from collections.abc import Sequence
from typing import Any, ClassVar, cast, get_args

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from framework.cli.plan import PlanOptions, read_recipe, show_plan
from framework.cli.registry import RECIPES, methods
from framework.cli.train import TRAINER_DEFAULTS, RecipeParser, TrainingCLI
from framework.data.module import NUMBERS, ShardDataModule, check_numbers
from framework.tracking.loggers import RunConfig, wandb_mode
from framework.tracking.paths import expand_paths
from framework.training.strategies.config import StrategyName
from framework.training.trainer import RecipeTrainer


class ReadingCLI(TrainingCLI):
    """Parses a recipe and every option of `fit`, without opening data or making anything."""

    command: ClassVar[str]

    def __init__(self, argv: Sequence[str]) -> None:
        self._prepare(self.command, *argv)
        LightningCLI.__init__(
            self,
            datamodule_class=ShardDataModule,
            trainer_class=RecipeTrainer,
            trainer_defaults=dict(TRAINER_DEFAULTS),
            seed_everything_default=0,
            parser_class=RecipeParser,
            parser_kwargs={
                "prog": f"framework {self.command}",
                "description": RECIPES[self.command].capitalize() + ".",
            },
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=list(argv),
            run=False,
        )

    def before_instantiate_classes(self) -> None:
        super().before_instantiate_classes()
        data = self.section(self.config, "data")
        check_numbers(**{name: data[name] for name in NUMBERS})

    def settings(self) -> dict[str, Any]:
        """All of them, with their paths expanded."""
        return cast(Namespace, expand_paths(self.config)).as_dict()


class PlanCLI(ReadingCLI):
    """`plan`: what a recipe needs of its devices."""

    command = "plan"

    def __init__(self, argv: Sequence[str]) -> None:
        names = get_args(StrategyName)
        super().__init__(
            [
                "--strategy.name" if word == "--strategy" and following in names else word
                for word, following in zip(argv, [*argv[1:], ""], strict=True)
            ]
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_class_arguments(PlanOptions)

    def instantiate_classes(self) -> None:
        recipe = self.settings()
        options = PlanOptions.of_recipe(recipe)
        show_plan(read_recipe(recipe, options, methods()), options)


class WhereCLI(ReadingCLI):
    """`where`: a recipe that `fit` takes, and where its run will be; a line each, which the launchers read."""

    command = "where"

    def instantiate_classes(self) -> None:
        run = RunConfig(**self.settings()["run"])
        print(f"run.dir: {run.dir}\nrun.wandb: {wandb_mode(run)}")
