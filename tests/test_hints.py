"""What the errors' hints and the documents name exists: commands, options, and settings of recipes."""

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from framework.cli.parser import settings_of
from framework.cli.registry import GENERAL, RECIPES, commands, methods
from framework.cli.train import RecipeParser, TrainingCLI
from framework.core.imports import import_object
from framework.core.method import Command
from framework.data.images.options import ReadOptions
from framework.data.module import ShardDataModule
from framework.training.trainer import RecipeTrainer

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "framework"
PAGES = [ROOT / "README.md", ROOT / "launch/README.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = {
    "--nnodes": "torchrun's",
    "--nproc-per-node": "torchrun's",
    "--nodes": "srun's",
    "--ntasks": "srun's",
    "--ntasks-per-node": "srun's",
    "--help": "everybody's",
    "--constraint": "pip's",
}
_SECTIONS = "run|data|trainer|checkpoint|strategy|guards"
_FILES = re.compile(r"\.(?:json|yaml|yml|csv|txt|py)$")


def texts_of_errors(tree: ast.AST) -> Iterator[str]:
    """The texts of a module's errors and hints, with `{}` for what is filled in."""
    for node in ast.walk(tree):
        wanted: list[ast.expr] = []
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            wanted += [each.value for each in node.keywords if each.arg == "hint"]
            wanted += node.args if name.endswith("Error") else []
        elif isinstance(node, ast.Assign) and any("hint" in ast.unparse(each).lower() for each in node.targets):
            wanted.append(node.value)
        for each in wanted:
            yield from map(_text, _strings(each))


def _strings(node: ast.expr) -> Iterator[ast.expr]:
    """The texts in an expression, each f-string as one."""
    if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
        yield node
        return
    for each in ast.iter_child_nodes(node):
        if isinstance(each, ast.expr):
            yield from _strings(each)


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    assert isinstance(node, ast.JoinedStr)
    return "".join(str(each.value) if isinstance(each, ast.Constant) else "{}" for each in node.values)


@cache
def all_texts() -> tuple[tuple[str, str], ...]:
    """Every text of an error with its module."""
    modules = sorted(PACKAGE.rglob("*.py"))
    return tuple((str(path), text) for path in modules for text in texts_of_errors(ast.parse(path.read_text())))


@cache
def known_commands() -> dict[str, Command | None]:
    return {**dict.fromkeys(RECIPES), **GENERAL, **commands(methods())}


@cache
def known_settings() -> frozenset[str]:
    """Of `fit`, with the groups that they are in, and with those of the models below `model`."""
    recipe = RecipeParser()
    recipe.add_lightning_class_args(RecipeTrainer, "trainer")
    recipe.add_lightning_class_args(ShardDataModule, "data")
    TrainingCLI.add_arguments_to_parser(Mock(spec=TrainingCLI), recipe)
    images = {f"data.images.read.{each.name}" for each in fields(ReadOptions)}
    found = {*settings_of(recipe), *images, "config", "seed_everything", "model", "model.help", "print_config"}
    for path in (path for method in methods() for path in method.modules):
        parser = RecipeParser()
        parser.add_class_arguments(import_object(path))
        found |= {f"model.{key}" for key in settings_of(parser)} | {
            f"model.init_args.{key}" for key in settings_of(parser)
        }
    return frozenset(found | {key.rsplit(".", count)[0] for key in found for count in range(1, key.count(".") + 1)})


@cache
def known_options() -> frozenset[str]:
    """Names of arguments of the commands' functions, and of the records among them, by their last word too."""
    found = set(known_settings())
    waiting: list[Any] = []
    for command in known_commands().values():
        paths = (
            ()
            if command is None
            else [command.function]
            if isinstance(command.function, str)
            else command.function.values()
        )
        waiting += map(import_object, paths)
    seen: set[object] = set()
    while waiting:
        function = waiting.pop()
        for name, each in signature(function).parameters.items():
            found.add(name)
            kind = type(each.default)
            if kind.__module__.startswith("framework.") and kind not in seen:
                seen.add(kind)
                waiting.append(kind)
    return frozenset(found)


def misnamed(text: str) -> list[str]:
    """What a text names and what is not there."""
    options = [each.rstrip(".") for each in re.findall(r"(?<![\w-])--[a-z][\w.-]*", text)]
    known = known_options()
    wrong = [
        each for each in options
        if each not in ELSEWHERE and each[2:] not in known and each.rpartition(".")[2] not in known
    ]  # fmt: skip
    wrong += [each for each in re.findall(r"\bframework ([a-z][\w-]*)", text) if each not in known_commands()]
    for command, sub in re.findall(r"\bframework ([a-z][\w-]*) ([a-z][\w-]*)\b", text):
        function = getattr(known_commands().get(command), "function", "")
        wrong += [f"{command} {sub}"] if not isinstance(function, str) and sub not in function else []
    return wrong + unknown_settings(text)


def unknown_settings(text: str) -> list[str]:
    """Settings of recipes that a text names and that are not there."""
    named = re.findall(rf"(?<![\w./-])(?:{_SECTIONS})(?:\.[a-z_]\w*)+(?![\w.])", text)
    return [each for each in named if not _is_setting(each) and not _FILES.search(each)]


def _is_setting(name: str) -> bool:
    """Whether a recipe has a setting of this name; a model's may be called by what stands below `model`."""
    return any(name == each or f"model.{name}" == each for each in known_settings())


def test_what_does_not_exist_is_found():
    assert misnamed("use --trainer.max_stepz 3") == ["--trainer.max_stepz"]
    assert misnamed("see framework fitt") == ["fitt"]
    assert misnamed("write one with: framework shards pictures A B") == ["shards pictures"]
    assert misnamed("set trainer.max_stepz") == ["trainer.max_stepz"]
    assert misnamed("set trainer.max_steps, or --run.dir; framework shards images; data.json") == []


@pytest.mark.slow
def test_what_errors_name_exists():
    wrong = [(module, text, found) for module, text in all_texts() if (found := misnamed(text))]
    assert len(all_texts()) > 800
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_what_documents_name_exists(page: Path):
    spans = re.findall(r"`(?:--)?([^`\n]+)`", page.read_text())
    options = re.findall(rf"--((?:{_SECTIONS}|model)(?:\.\w+)+)", page.read_text())
    wrong = [each for span in spans for each in unknown_settings(span)]
    assert [*wrong, *(each for each in options if not _is_setting(each))] == []
