"""Options of strategies that cannot be, sections of recipes, and the tables."""

from importlib import import_module
from typing import Any, get_args

import pytest

from framework.core.errors import ConfigError
from framework.training.strategies.config import (
    CHECKPOINT_READERS,
    STRATEGIES,
    CheckpointKind,
    DeepSpeedOptions,
    FSDP2Options,
    StrategyConfig,
)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StrategyConfig(activation_checkpointing=-1), "activation_checkpointing -1: use 0 for none, 1 for"),
        (lambda: FSDP2Options(replicate=0), "replicate 0: use 1 or more"),
        (lambda: DeepSpeedOptions(offload_parameters=True), "offload_parameters with stage 2: use stage 3"),
    ],
)
def test_options_that_cannot_be(make: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_section_of_a_recipe():
    section = {"name": "fsdp2", "compile": True, "fsdp2": {"replicate": 2}, "deepspeed": {"stage": 3}}
    assert StrategyConfig.of_recipe(section) == StrategyConfig(
        name="fsdp2", compile=True, fsdp2=FSDP2Options(replicate=2), deepspeed=DeepSpeedOptions(stage=3)
    )
    assert StrategyConfig.of_recipe({}) == StrategyConfig()


def test_the_tables_name_what_can_be_imported():
    for path in (*STRATEGIES.values(), *CHECKPOINT_READERS.values()):
        module, _, name = path.partition(":")
        assert callable(getattr(import_module(module), name)), path
    assert tuple(CHECKPOINT_READERS) == get_args(CheckpointKind)
