"""What recipes name, and what is wrong with it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from framework.core.errors import ConfigError, DataError
from framework.gbc.graph.spec import load_graph
from framework.gbc.graph.yaml_config import make_function
from framework.gbc.language_models.local import LocalModel
from framework.gbc.language_models.server import ServerModel
from framework.gbc.training.setup import load_system, save_declared, target_of
from framework.testing.agents import make_world
from framework.training.strategies.placement import Placement

MULTIWOZ = Path(__file__).parents[3] / "recipes/gbc/graphs/multiwoz.yaml"
HERE = Placement(device=torch.device("cpu"))


@pytest.mark.slow
def test_graph_and_models(tmp_path: Path):
    make_world(tmp_path)
    models = {"m": {"path": str(tmp_path / "model"), "device": "cuda"}, "big": {"url": "http://x/v1", "model": "b"}}
    system = load_system(str(tmp_path / "graph.yaml"), models, HERE, "big")
    assert isinstance(system.models["big"], ServerModel)
    assert [model.device.type for model in system.models.values() if isinstance(model, LocalModel)] == ["cpu"]
    assert not system.is_sharded
    (tmp_path / "models.yaml").write_text(yaml.safe_dump({"other": models["m"]}))
    with (
        pytest.warns(UserWarning, match=r"strategy\.compile is ignored"),
        pytest.raises(ConfigError, match=r"agent 'first' uses model 'm', which .*models.yaml does not name"),
    ):
        load_system(system.declared, str(tmp_path / "models.yaml"), replace(HERE, compile=True))


def test_prompts_are_saved_into_graphs_whose_tools_have_arguments(tmp_path: Path):
    declared = yaml.safe_load(MULTIWOZ.read_text())
    before = load_graph(MULTIWOZ)
    save_declared(tmp_path / "best/graph.yaml", declared, {**before.prompts, "hotel": "Find:\na bed"})
    after = load_graph(tmp_path / "best/graph.yaml")
    assert after.prompts == {**before.prompts, "hotel": "Find:\na bed"}
    assert after.tools[0].function.release == before.tools[0].function.release  # type: ignore[attr-defined]


def test_targets():
    task = {"id": "t", "text": "right", "expected": {"hotel-area": "north", "hotel-day": "mon"}}
    assert target_of("text")(task) == "right"
    assert target_of("framework.gbc.training.targets:expected_slots")(task) == "hotel-area north hotel-day mon"
    for name, problem in (("other", "no text 'other'"), ("expected.missing", "cannot be imported")):
        with pytest.raises((DataError, ConfigError), match=problem):
            target_of(name)(task)
    with pytest.raises(DataError, match="raised KeyError"):
        target_of("framework.gbc.environments.multiwoz.training:turn_targets")({"id": "t"})


def test_functions_with_arguments():
    tasks = make_function(
        {"class_path": "framework.gbc.environments.multiwoz.training.Tasks", "init_args": {"max_turns": 2}}
    )
    assert tasks.max_turns == 2  # type: ignore[attr-defined]
    bad: list[tuple[Any, str]] = [
        ({"class_path": "framework.gbc.environments.multiwoz.training.Tasks", "init_args": {"turns": 2}}, "turns"),
        ({"path": "x"}, "declared with path"),
        ({"class_path": "framework.gbc.graph.spec.UserTurn", "init_args": {"name": "x"}}, "makes is not a function"),
    ]
    for declared, message in bad:
        with pytest.raises(ConfigError, match=message):
            make_function(declared)
