"""Options of a comparison: what the parts have their own of is refused, the rest counts as if the recipe said it."""

from typing import Any

import pytest

from framework.core.errors import ConfigError
from framework.pra.commands.comparison.options import check_options, with_options


def recipe() -> dict[str, Any]:
    architecture = {"width": 16, "image_size": 8}
    return {
        "model": {"class_path": "PRAModule", "init_args": {"architecture": architecture}},
        "data": {"train": "here"},
        "trainer": {"max_steps": 5},
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trainer.max_steps 5"], r"one word in options: '--trainer.max_steps 5': give them as two"),
        (["--config", "other.yaml"], "--config among the options: give one recipe"),
        (["--config=other.yaml"], "--config among the options"),
        (["-c", "other.yaml"], "-c among the options"),
        (["--run.dir", "elsewhere"], "--run.dir among the options: leave it out"),
        (["--seed_everything=1"], "--seed_everything among the options"),
        (["--model.seed", "1"], "--model.init_args.seed among the options"),
        (["--model.architecture.variant", "low_dim"], "architecture.variant among the options"),
        (["--data.images.size", "16"], "--data.images.size among the options"),
    ],
)
def test_what_the_parts_have_their_own_of_is_no_option(words: list[str], message: str):
    with pytest.raises(ConfigError, match=message):
        check_options(["--data.batch_size", "2", *words], ())


def test_values_may_have_spaces_and_be_negative():
    check_options(["--run.name", "a b", "--trainer.max_epochs", "-1", "--run.name=a b", "--trainer.max_steps=3"], ())


@pytest.mark.parametrize("name", ["trainer.max_steps", "checkpoint.every_n_steps", "checkpoint.keep_every_n_steps"])
def test_what_follows_from_training_steps_is_given_once(name: str):
    check_options([f"--{name}", "7"], ())
    with pytest.raises(ConfigError, match=rf"training_steps \[1, 2\] and --{name} .* leave out the option"):
        check_options([f"--{name}=7"], (1, 2))


def test_options_count_as_if_the_recipe_said_it():
    words = ["--model.architecture.width", "32", "--model.init_args.architecture.depth=2", "--data.train", "there"]
    words += ["--model.optimizer.schedule", "cosine", "--trainer.max_steps", "7", "--run.name", "@ {", "--x+=1"]
    expected = recipe()
    expected["model"]["init_args"]["architecture"] |= {"width": 32, "depth": 2}
    expected["model"]["init_args"]["optimizer"] = {"schedule": "cosine"}
    expected["data"]["train"], expected["trainer"]["max_steps"] = "there", 7
    given = recipe()
    assert with_options(given, words) == expected
    assert given == recipe()


@pytest.mark.parametrize(
    "words", [["--trainer", "{max_steps: 3}"], ["--model.architecture={width: 8}"], ["--data", "x"]]
)
def test_groups_are_given_by_name(words: list[str]):
    with pytest.raises(ConfigError, match="is a group of settings: give its settings by name"):
        with_options(recipe(), words)
