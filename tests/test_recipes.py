"""Every recipe is found, parsed and built on the meta device, every graph read; the named sizes are what they say."""

from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch import LightningModule

from framework.cli.train import TrainingCLI
from framework.evaluation.classifier import ClassifierModule
from framework.gbc.graph.spec import load_graph
from framework.gbc.training.module import GBCModule
from framework.language_model.module import LanguageModelModule
from framework.pra.module import PRAModule

ROOT = Path(__file__).parents[1]
GRAPHS = sorted((ROOT / "recipes").rglob("graphs/*.yaml"))
RECIPES = sorted(set((ROOT / "recipes").rglob("*.yaml")) - set(GRAPHS))
BASELINES = {"multiwoz_alone": "multiwoz_small"}
"""Graphs that are trained by the recipe of another one (`framework agents compare-multiwoz`)."""
SIZES = {"imagenet256_s": 135e6, "imagenet256_b": 250e6, "imagenet256_l": 511e6}


class Parsed(TrainingCLI):
    """Stops after parsing and building model and data: no trainer, no run folder."""

    def instantiate_classes(self) -> None:
        with torch.device("meta"):
            self.config_init: Namespace = self.parser.instantiate(self.config)
        self.model: LightningModule = self._get(self.config_init, "model")

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def build(recipe: Path) -> LightningModule:
    module = Parsed(["fit", "--config", str(recipe)]).model
    with torch.device("meta"):
        module.configure_model()
    return module


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_builds(recipe):
    module = build(recipe)
    assert isinstance(module, PRAModule | ClassifierModule | LanguageModelModule | GBCModule)
    parameters = list(module.parameters())
    assert parameters
    assert all(parameter.is_meta for parameter in parameters)


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_every_graph_is_read_and_its_recipes_name_its_models(path):
    graph = load_graph(path)
    settings = [yaml.safe_load(recipe.read_text())["model"]["init_args"] for recipe in RECIPES]
    trained = path.with_stem(BASELINES.get(path.stem, path.stem))
    given = [each["models"] for each in settings if each.get("graph") == str(trained.relative_to(ROOT))]
    assert given, "no recipe trains it"
    for models in given:
        assert {agent.model for agent in graph.agents} <= models.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_named_sizes_are_within_one_percent(name):
    module = build(ROOT / "recipes" / "pra" / f"{name}.yaml")
    assert module.model.num_sampling_parameters() == pytest.approx(SIZES[name], rel=0.01)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_no_recipe_names_machines(recipe):
    content = yaml.safe_load(recipe.read_text())
    assert not {"num_nodes", "devices", "strategy"} & content["trainer"].keys()
    assert content.get("strategy", {}).keys() <= {"compile", "activation_checkpointing"}
