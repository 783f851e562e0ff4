"""The table of methods, and that no general code knows what is in it."""

import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from framework.cli.registry import commands, listing
from framework.core import method as module
from framework.core.errors import ConfigError
from framework.core.imports import import_object
from framework.core.method import Command, Method, load_methods, method_of, sample_unit_of
from framework.evaluation.classifier import ClassifierModule
from framework.methods import METHODS

ROOT = Path(__file__).parents[1] / "framework"
GENERAL = ("cli", "core", "data", "evaluation", "language_model", "report", "tracking", "training")


class Derived(ClassifierModule):
    """A class of a user's."""


def test_no_general_code_names_a_method():
    """Neither by an import, which import-linter sees too, nor in a text."""
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for package in GENERAL
        for path in sorted((ROOT / package).rglob("*.py"))
        # The table of old import paths has all of them.
        if path.relative_to(ROOT) != Path("core/moved/import_paths.py")
        for line in path.read_text().splitlines()
        if re.search(r"\b(pra|gbc)\b", line, re.IGNORECASE)
    ]
    assert found == []


def test_what_a_record_names_is_there():
    for method in load_methods(METHODS):
        paths = [*method.modules, *(kind.function for kind in method.exports)]
        paths += [path for path in (method.plan, method.report) if path is not None]
        for command in method.commands.values():
            paths += [command.function] if isinstance(command.function, str) else command.function.values()
        for added in method.subcommands.values():
            paths += added.values()
        assert all(callable(import_object(path)) for path in paths)
        assert len(method.modules) == 1
        assert method_of(import_object(method.modules[0]), [method]) is method


def test_a_class_belongs_to_the_method_of_its_base():
    known = load_methods(METHODS)
    assert method_of(Derived, known) is known[-1]
    assert sample_unit_of(Derived, known) == "image"
    assert sample_unit_of(dict, known) == "sample"
    assert method_of("framework.language_model.module.LanguageModelModule", known) is known[2]
    assert method_of("somewhere.Else", known) is method_of(None, known) is None


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


def test_entries_that_lead_nowhere_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "entries_of_mine.py").write_text(
        "from framework.core.method import Method\n"
        "FIRST = Method(name='mine', description='')\nSECOND = Method(name='mine', description='another')\nTEXT = 'x'\n"
    )

    def entry(name: str) -> list[EntryPoint]:
        return [EntryPoint(name="mine", value=f"entries_of_mine:{name}", group=module.ENTRY_POINTS)]

    for name, words in (
        ("TEXT", "TEXT is not a Method"),
        ("SECOND", "second method 'mine'"),
        ("NONE", "cannot be imported"),
    ):
        monkeypatch.setattr(module, "entry_points", lambda group, name=name: entry(name))
        with pytest.raises(ConfigError, match=words):
            load_methods(["entries_of_mine:FIRST"])
