"""A limit is read as it is written, whoever has named the types before."""

from typing import Any, Optional, Union

import pytest
from jsonargparse import ArgumentParser

from framework.training.trainer import RecipeTrainer

# The other order of Lightning's annotation: Python then keeps this one for both.
FLOAT_FIRST = Optional[Union[float, int]]  # noqa: UP007, UP045


@pytest.mark.parametrize("name", ["limit_train_batches", "limit_val_batches"])
@pytest.mark.parametrize(("text", "expected"), [("1", 1), ("2", 2), ("1.0", 1.0), ("0.5", 0.5), ("null", None)])
def test_one_batch_and_all_of_them(name: str, text: str, expected: object):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(RecipeTrainer)
    value = parser.parse_args([f"--{name}", text])[name]
    assert value == expected
    assert isinstance(value, type(expected))


def test_all_other_options_are_lightnings():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(RecipeTrainer)
    assert parser.parse_args(["--max_steps", "3"]).max_steps == 3


def test_a_least_number_of_steps_is_not_an_epoch_besides():
    quiet: dict[str, Any] = {"accelerator": "cpu", "max_steps": 9, "logger": False, "enable_progress_bar": False}
    for given, expected in (({"min_steps": 3}, 0), ({"min_steps": 3, "min_epochs": 2}, 2), ({}, None)):
        assert RecipeTrainer(**quiet, **given).min_epochs == expected
