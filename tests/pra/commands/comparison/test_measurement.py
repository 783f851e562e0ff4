"""How a part is trained and measured; the command itself is in `test_compare`."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from framework.core.errors import ConfigError, TrainingError
from framework.pra.commands.comparison.measurement import Protocol, checkpoint_at, fit, results_folder, train_part
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
    fit("recipe.yaml", Path("out/part"), {}, seed=0)
    with pytest.raises(TrainingError, match="training of part failed"):
        fit("recipe.yaml", Path("out/part"), {}, seed=0)


def test_results_depend_on_all_but_where_the_recipe_lies():
    assert "recipe" not in PROTOCOL.settings
    assert PROTOCOL.settings["options"] == ["--trainer.max_steps", "7"]
    assert PROTOCOL.training.items() <= PROTOCOL.settings.items()


def test_a_part_is_trained_to_the_most_steps_with_a_checkpoint_at_each(commands: list[list[str]], tmp_path: Path):
    protocol = replace(PROTOCOL, options=(), training_steps=(4, 6, 14))
    part = Part(architecture=tiny_config(), seed=5)
    train_part(part, tmp_path, protocol)
    (command,) = commands
    options = dict(zip(command[4::2], command[5::2], strict=True))
    assert options["--trainer.max_steps"] == "14"
    assert options["--checkpoint.every_n_steps"] == options["--checkpoint.keep_every_n_steps"] == "2"
    # Trained as long as is asked for, it is left alone.
    checkpoint_at(tmp_path, 14).mkdir(parents=True)
    train_part(part, tmp_path, protocol)
    assert len(commands) == 1


def test_each_moment_has_a_folder():
    run = Path("out/part")
    assert (checkpoint_at(run, None), results_folder(run, None)) == (run, run)
    assert checkpoint_at(run, 20) == run / "checkpoints/step=00000020"
    assert results_folder(run, 20) == run / "measured-20"


def test_how_long_a_part_was_trained_is_no_setting_of_it():
    assert replace(PROTOCOL, options=(), training_steps=(1, 2)).settings == replace(PROTOCOL, options=()).settings


@pytest.mark.parametrize("training_steps", [(0, 2), (2, 1), (1, 1)])
def test_steps_that_do_not_rise_are_refused(training_steps: tuple[int, ...]):
    with pytest.raises(ConfigError, match="rising numbers of steps"):
        replace(PROTOCOL, options=(), training_steps=training_steps)


@pytest.mark.parametrize("options", [("--trainer.max_steps", "7"), ("--trainer.max_steps=7",)])
def test_a_length_of_training_is_given_once(options: tuple[str, ...]):
    with pytest.raises(ConfigError, match="leave out the option"):
        replace(PROTOCOL, options=options, training_steps=(1, 2))
