"""How a part is trained, and what it was begun with; the command itself is in `test_compare`."""

import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from framework.core.errors import CheckpointError, ConfigError, Interrupted, Preempted, TrainingError
from framework.pra.commands.comparison.parts import Part
from framework.pra.commands.comparison.results import write_result
from framework.pra.commands.comparison.training import (
    check_begun,
    check_kept,
    checkpoint_at,
    checkpoint_of,
    fit,
    results_folder,
    run_to_end,
    train_classifier,
    train_part,
)
from framework.testing.models import tiny_config
from tests.pra.commands.comparison.test_protocol import PROTOCOL
from tests.pra.commands.comparison.test_results import result

SAVES = """
import pathlib, signal, sys, time
def save(*_):
    pathlib.Path(sys.argv[1], "saved").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
pathlib.Path(sys.argv[1], "started").touch()
time.sleep(60)
"""


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    given: list[list[str]] = []

    def run(command: list[str]) -> int:
        given.append(command)
        return 0

    monkeypatch.setattr("framework.pra.commands.comparison.training.run_to_end", run)
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
    # What the part has its own of is said last, and counts.
    assert command.index("--trainer.max_steps") < command.index("--model.architecture.head_width")


@pytest.mark.parametrize(("code", "error"), [(3, TrainingError), (75, Preempted), (130, Interrupted)])
def test_a_training_that_fails_or_is_stopped_is_named(
    monkeypatch: pytest.MonkeyPatch, code: int, error: type[Exception]
):
    monkeypatch.setattr("framework.pra.commands.comparison.training.run_to_end", lambda command: code)
    with pytest.raises(error, match=r"training of part (failed|was stopped)"):
        fit("recipe.yaml", Path("out/part"), {}, seed=0)


@pytest.mark.slow
def test_a_training_saves_itself_when_the_comparison_is_stopped(tmp_path: Path):
    main = threading.get_ident()

    def interrupt() -> None:
        while not (tmp_path / "started").exists():
            time.sleep(0.01)
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run_to_end([sys.executable, "-c", SAVES, str(tmp_path)])
    assert (tmp_path / "saved").exists()
    assert run_to_end([sys.executable, "-c", "raise SystemExit(3)"]) == 3


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


def test_what_a_run_was_begun_with_stays(tmp_path: Path):
    check_begun(tmp_path, PROTOCOL.training)
    check_begun(tmp_path, PROTOCOL.training)
    with pytest.raises(ConfigError, match=r"other options \(recipe_sha256\): take another folder"):
        check_begun(tmp_path, replace(PROTOCOL, recipe_sha256="def").training)


@pytest.mark.parametrize("steps", [None, 20])
def test_runs_of_before_that_was_written_down_are_known_by_their_results(tmp_path: Path, steps: int | None):
    folder = results_folder(tmp_path, steps)
    folder.mkdir(exist_ok=True)
    write_result(folder, result(settings=PROTOCOL.settings))
    check_begun(tmp_path, PROTOCOL.training)
    with pytest.raises(ConfigError, match=r"other options \(options\)"):
        check_begun(tmp_path, replace(PROTOCOL, options=("--data.batch_size", "3")).training)


def test_a_classifier_of_another_recipe_is_refused(commands: list[list[str]], tmp_path: Path):
    recipe, run = tmp_path / "classifier.yaml", tmp_path / "classifier-8px"
    recipe.write_text("a: 1")
    run.mkdir()
    check_begun(run, {"recipe_sha256": "another"})
    with pytest.raises(ConfigError, match="classifier-8px was trained with another recipe"):
        train_classifier(str(recipe), run, 8)
    assert not commands


def test_each_moment_has_a_checkpoint_and_a_folder(tmp_path: Path):
    checkpoint_at(tmp_path, 20).mkdir(parents=True)
    assert checkpoint_at(tmp_path, 20) == tmp_path / "checkpoints/step=00000020"
    assert checkpoint_of(tmp_path, 20, PROTOCOL) == checkpoint_at(tmp_path, 20)
    assert checkpoint_of(tmp_path, None, PROTOCOL) == results_folder(tmp_path, None) == tmp_path
    assert results_folder(tmp_path, 20) == tmp_path / "measured-20"


def test_what_was_not_kept_is_said_before_the_training(tmp_path: Path):
    checkpoint_at(tmp_path, 20).mkdir(parents=True)
    for steps in (20, 30):
        check_kept(tmp_path, steps, PROTOCOL)
    with pytest.raises(CheckpointError, match="kept no checkpoint after 10 steps: leave that number out"):
        check_kept(tmp_path, 10, PROTOCOL)


def test_the_end_of_a_recipe_is_its_own_last_step(commands: list[list[str]], tmp_path: Path):
    checkpoint_at(tmp_path, 20).mkdir(parents=True)
    short = replace(PROTOCOL, recipe_steps=10)
    with pytest.raises(CheckpointError, match="kept no checkpoint after 10 steps: take another folder"):
        check_kept(tmp_path, None, short)
    # The run has gone further, and has kept it: nothing is left to train.
    checkpoint_at(tmp_path, 10).mkdir()
    check_kept(tmp_path, None, short)
    train_part(Part(architecture=tiny_config(), seed=0), tmp_path, short)
    assert not commands
    assert checkpoint_of(tmp_path, None, short) == checkpoint_at(tmp_path, 10)
    assert checkpoint_of(tmp_path, None, replace(PROTOCOL, recipe_steps=20)) == tmp_path
