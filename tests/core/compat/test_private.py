"""No private part of another library is touched outside of the compat files, and each of theirs has its test."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import framework
from tests.core.compat import test_deepspeed_compat, test_lightning_compat, test_torch_compat

ROOT = Path(framework.__file__).parent
TESTED = {
    "torch_compat.py": test_torch_compat.PRIVATE,
    "lightning_compat.py": test_lightning_compat.PRIVATE,
    "deepspeed_compat.py": test_deepspeed_compat.PRIVATE,
}
STANDARD_LIBRARY = {"_exit", "_current_frames"}
"""`os._exit` and `sys._current_frames`: underscored, and documented."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def own_names(trees: list[ast.Module]) -> set[str]:
    """Private names that the framework gives by itself: functions, classes, variables, attributes that it sets."""
    found = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found.add(node.name)
            case ast.Attribute(ctx=ast.Store(), value=ast.Name(id="self" | "cls")):
                found.add(node.attr)
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                found.add(name)
    return found


def private_touches(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of each private module, name or attribute that code asks for; overridden methods too."""
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module)) if not module.startswith(("framework", "__")):
                for name in [*module.split("."), *(alias.name for alias in node.names)]:
                    if is_private(name):
                        yield node.lineno, name
            case ast.Import():
                for name in (name for alias in node.names for name in alias.name.split(".")):
                    if is_private(name):
                        yield node.lineno, name
            case ast.Attribute(attr=name) if is_private(name):
                yield node.lineno, name
            case ast.Call(
                func=ast.Name(id="getattr" | "hasattr" | "setattr"), args=[_, ast.Constant(value=str(name)), *_]
            ):
                if is_private(name):
                    yield node.lineno, name


def parsed() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}


def is_compat(path: Path) -> bool:
    return path.name.endswith("_compat.py")


@pytest.mark.slow
def test_no_private_part_of_another_library_is_touched_outside_of_compat_files():
    trees = parsed()
    ours = own_names([tree for path, tree in trees.items() if not is_compat(path)]) | STANDARD_LIBRARY
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path, tree in trees.items()
        if not is_compat(path)
        for line, name in private_touches(tree)
        if name not in ours
    ]
    assert found == []


@pytest.mark.parametrize("file", TESTED)
def test_every_private_part_in_a_compat_file_is_tested(file: str):
    tree = ast.parse((ROOT / "core/compat" / file).read_text())
    touched = {name for _, name in private_touches(tree)}
    tested = {name for path in TESTED[file] for name in path.replace(":", ".").split(".") if is_private(name)}
    classes = {"_TrainingEpochLoop", "_MultiProcessingDataLoaderIter"}
    assert touched == tested - classes, "each has an entry in PRIVATE of its test, and no other"
