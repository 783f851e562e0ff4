"""What two comparisons differ in."""

from dataclasses import replace

import pytest

from framework.core.errors import ConfigError
from framework.pra.commands.comparison.protocol import Protocol, differences

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


def test_results_depend_on_all_but_where_the_recipe_lies():
    assert "recipe" not in PROTOCOL.settings
    assert PROTOCOL.settings["options"] == ["--trainer.max_steps", "7"]
    assert PROTOCOL.training.items() <= PROTOCOL.settings.items()


def test_how_long_a_part_was_trained_is_no_setting_of_it():
    longer = replace(PROTOCOL, options=(), training_steps=(1, 2), recipe_steps=9)
    assert longer.settings == replace(PROTOCOL, options=()).settings


@pytest.mark.parametrize("training_steps", [(0, 2), (2, 1), (1, 1)])
def test_steps_that_do_not_rise_are_refused(training_steps: tuple[int, ...]):
    with pytest.raises(ConfigError, match="rising numbers of steps"):
        replace(PROTOCOL, options=(), training_steps=training_steps)


def test_steps_with_little_in_common_are_refused():
    assert replace(PROTOCOL, options=(), training_steps=(500, 50_000)).training_options[-1] == "500"
    with pytest.raises(ConfigError, match=r"training_steps \[999, 1000\] parts keep a checkpoint each 1 steps"):
        replace(PROTOCOL, options=(), training_steps=(999, 1000))


@pytest.mark.parametrize("options", [("--trainer.max_steps", "7"), ("--trainer.max_steps=7",)])
def test_a_length_of_training_is_given_once(options: tuple[str, ...]):
    with pytest.raises(ConfigError, match="leave out the option"):
        replace(PROTOCOL, options=options, training_steps=(1, 2))


def test_what_something_was_made_with():
    protocol = replace(PROTOCOL, classifier_sha256="a", weights_sha256="b")
    made = protocol.settings
    assert differences(made, protocol.settings) == []
    assert differences(made, replace(protocol, weights_sha256="c").settings) == ["weights_sha256"]
    assert differences(made, replace(protocol, classifier_sha256="c").training) == ["classifier_sha256"]
    older = {name: value for name, value in made.items() if not name.endswith("r_sha256")}
    assert differences(older, protocol.settings) == []


def test_scales_of_guidance_are_the_same_in_any_order_with_or_without_none():
    made = replace(PROTOCOL, guidance=(1.0, 1.5, 3.0)).settings
    assert differences(made, replace(PROTOCOL, guidance=(3.0, 1.5)).settings) == []
    assert differences(made, replace(PROTOCOL, guidance=(1.5,)).settings) == ["guidance"]


def test_a_classifier_is_the_same_wherever_its_recipe_lies():
    here, there = (replace(PROTOCOL, features=path, classifier_sha256="a") for path in ("c.yaml", "elsewhere/c.yaml"))
    assert differences(here.settings, there.settings) == []
    assert differences(here.settings, replace(there, classifier_sha256="b").settings) == [
        "features",
        "classifier_sha256",
    ]
    assert differences(PROTOCOL.settings, replace(PROTOCOL, features="inception").settings) == ["features"]
