"""How a part is trained and measured; the command itself is in `test_compare`."""

import subprocess
from pathlib import Path

import pytest

from framework.core.errors import TrainingError
from framework.pra.commands.comparison.measurement import Protocol, fit, train_part
from framework.pra.commands.comparison.parts import Part
from framework.testing.models import tiny_config

PROTOCOL = Protocol(
    recipe="recipe.yaml",
    recipe_sha256="abc",
    options=("--trainer.max_steps", "7"),
    features="pixels",
    guidance=(1.0,),
    num=4,
    steps=2,
    svm_accuracy=False,
)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    given: list[list[str]] = []

    def run(command: list[str], *, check: bool) -> subprocess.CompletedProcess[bytes]:
        given.append(command)
        return subprocess.CompletedProcess(command, returncode=0 if "--good" in command or len(given) < 2 else 3)

    monkeypatch.setattr("framework.pra.commands.comparison.measurement.subprocess.run", run)
    return given


def test_a_part_is_trained_with_its_own_architecture(commands: list[list[str]]):
    part = Part(architecture=tiny_config(variant="diffusion", depth=3, head_width=24), seed=5)
    train_part(part, Path("out/part"), PROTOCOL)
    (command,) = commands
    options = dict(zip(command[4::2], command[5::2], strict=True))
    assert options == {
        "--config": "recipe.yaml",
        "--run.dir": "out/part",
        "--seed_everything": "5",
        "--model.architecture.variant": "diffusion",
        "--model.architecture.image_size": "4",
        "--model.architecture.patch_size": "2",
        "--model.architecture.depth": "3",
        "--model.architecture.head_width": "24",
        "--data.images.size": "4",
        "--model.init_args.seed": "5",
        "--trainer.max_steps": "7",
    }


def test_a_training_that_fails_is_named(commands: list[list[str]]):
    fit("recipe.yaml", Path("out/part"), [], seed=0)
    with pytest.raises(TrainingError, match="training of part failed"):
        fit("recipe.yaml", Path("out/part"), [], seed=0)


def test_results_depend_on_all_but_where_the_recipe_lies():
    assert "recipe" not in PROTOCOL.settings
    assert PROTOCOL.settings["options"] == ["--trainer.max_steps", "7"]
    assert PROTOCOL.training.items() <= PROTOCOL.settings.items()
