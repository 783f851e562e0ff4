"""The record of a method: how it is found, and which class belongs to it."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from framework.core import method as module
from framework.core.errors import ConfigError
from framework.core.method import load_methods, method_of, sample_unit_of
from framework.evaluation.classifier import ClassifierModule
from framework.methods import METHODS


class Derived(ClassifierModule):
    """A class of a user's."""


def test_a_class_belongs_to_the_method_of_its_base():
    known = load_methods(METHODS)
    assert method_of(Derived, known) is known[-1]
    assert sample_unit_of(Derived, known) == "image"
    assert sample_unit_of(dict, known) == "sample"
    assert method_of("framework.language_model.module.LanguageModelModule", known) is known[2]
    assert method_of("somewhere.Else", known) is method_of(None, known) is None


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
