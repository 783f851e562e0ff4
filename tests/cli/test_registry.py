"""The commands: general ones, and what methods add."""

import re
from typing import Any

import pytest

from framework.cli.registry import commands, listing
from framework.core.errors import ConfigError
from framework.core.method import Command, Method


def named(**options: Any) -> Method:
    return Method(name="mine", description="a method of mine", **options)


def test_methods_add_commands_and_subcommands():
    mine = named(
        commands={"look": Command(help="a look", function="mine:look")}, subcommands={"shards": {"mine": "mine:shards"}}
    )
    found = commands([mine])
    assert found["look"].function == "mine:look"
    assert isinstance(found["shards"].function, dict)
    assert found["shards"].function["mine"] == "mine:shards"
    assert "images" in found["shards"].function
    assert re.search(r"\n\nmine: a method of mine\n  look +a look$", listing([mine]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"commands": {"fit": Command(help="", function="mine:fit")}}, "second command 'fit'"),
        ({"commands": {"export": Command(help="", function="mine:x")}}, "second command 'export'"),
        ({"subcommands": {"export": {"mine": "mine:x"}}}, "adds mine to 'export'"),
        ({"subcommands": {"nowhere": {"mine": "mine:x"}}}, "adds mine to 'nowhere'"),
        ({"subcommands": {"shards": {"images": "mine:x"}}}, "adds images to 'shards'"),
    ],
)
def test_commands_of_one_name_are_refused(options: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words):
        commands([named(**options)])
