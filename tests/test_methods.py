"""The table of methods, and that no general code knows what is in it."""

import re
from pathlib import Path

from framework.core.imports import import_object
from framework.core.method import load_methods, method_of
from framework.methods import METHODS

ROOT = Path(__file__).parents[1] / "framework"
GENERAL = ("cli", "core", "data", "evaluation", "language_model", "report", "tracking", "training")


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
