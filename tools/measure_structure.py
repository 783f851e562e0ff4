"""The structure of a checkout in numbers: how large its rooms are, what leaks out of them, what has no test.

    python tools/measure_structure.py [CHECKOUT] [--json FILE] [--details] [--check]

Reads the source alone (nothing is imported), so that it measures an older revision too:
`git worktree add ../old REVISION && python tools/measure_structure.py ../old`.
"""

import argparse
import ast
import json
import re
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = "framework"
METHODS = ("pra", "gbc")
METHOD_TABLE = "methods.py"
STRATEGY_HOME = "training/strategies"
LIBRARIES = ("torch", "lightning", "deepspeed", "transformers", "peft", "wandb")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
ARGS_FROM = 3
"""An Args section is expected from so many parameters on."""

NAMES_A_METHOD = re.compile(rf"\b{PACKAGE}\.({'|'.join(METHODS)})\b|\b({'|'.join(METHODS)})\b|\b(PRA|GBC)", re.ASCII)
NAMES_A_STRATEGY = re.compile(r"deepspeed|fsdp|ddp(?![a-z])|zero_?[123]\b|\bds_", re.IGNORECASE)
TUPLE_METHODS = {"_replace", "_asdict", "_fields", "_make"}
"""Public parts of named tuples, in spite of their underscore."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A source file. `name` is its path below the package, such as `training/ema.py`."""

    name: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @property
    def folder(self) -> str:
        return self.name.rpartition("/")[0]

    @property
    def is_init(self) -> bool:
        return self.name.endswith("__init__.py")

    @cached_property
    def functions(self) -> list[Function]:
        return [node for node in self.nodes if isinstance(node, Function)]

    @cached_property
    def strings(self) -> list[str]:
        """String constants that are not docstrings."""
        # A string that stands alone documents what is above it.
        alone = {id(node.value) for node in self.nodes if isinstance(node, ast.Expr)}
        constants = (node for node in self.nodes if isinstance(node, ast.Constant) and id(node) not in alone)
        return [node.value for node in constants if isinstance(node.value, str)]

    @cached_property
    def identifiers(self) -> set[str]:
        """Names of variables and attributes, and dotted names of what is imported."""
        found = set()
        for node in self.nodes:
            if isinstance(node, ast.Name):
                found.add(node.id)
            elif isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.ImportFrom):
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
        return found

    @cached_property
    def imported(self) -> dict[str, str]:
        """Where each imported name is from: `{"nn": "torch.nn", "Trainer": "lightning.pytorch.Trainer"}`."""
        found = {}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                found |= {alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        return found


@dataclass(frozen=True)
class Checkout:
    """The modules of a checkout, and the names of its tests (`training/test_ema.py`)."""

    modules: list[Module]
    tests: set[str]


def read_checkout(root: Path) -> Checkout:
    """Reads the sources below `root/framework` and lists the tests below `root/tests`."""
    package, tests = root / PACKAGE, root / "tests"
    if not package.is_dir():
        raise SystemExit(f"error: {root} has no folder {PACKAGE}; give the root of a checkout")
    modules = [Module(path.relative_to(package).as_posix(), path.read_text()) for path in sorted(package.rglob("*.py"))]
    return Checkout(modules, {path.relative_to(tests).as_posix() for path in tests.rglob("test_*.py")})


def flat_files(checkout: Checkout, folder: str) -> list[str]:
    """Modules that lie in `folder` itself, but for its `__init__`."""
    return [module.name for module in checkout.modules if module.folder == folder and not module.is_init]


def largest_folder(checkout: Checkout) -> tuple[str, int]:
    """The folder with most modules, and how many, but for its `__init__`."""
    return Counter(module.folder for module in checkout.modules if not module.is_init).most_common(1)[0]


def num_lines(function: Function) -> int:
    """Lines of a function, its docstring included, its decorators not."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def long_functions(checkout: Checkout) -> list[str]:
    """Functions longer than `MAX_FUNCTION_LINES`, with their length."""
    return [
        f"{module.name}:{function.name} {num_lines(function)}"
        for module in checkout.modules
        for function in module.functions
        if num_lines(function) > MAX_FUNCTION_LINES
    ]


def public_functions(node: ast.AST) -> Iterator[Function]:
    """Functions and methods without a leading underscore, of public classes; none that are nested in functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from public_functions(child)
        elif isinstance(child, Function) and not child.name.startswith("_"):
            yield child


def parameters(function: Function) -> list[str]:
    """Names of a function's parameters but for `self`, `cls` and `_ignored` ones."""
    arguments = function.args
    listed = [*arguments.posonlyargs, *arguments.args, arguments.vararg, *arguments.kwonlyargs, arguments.kwarg]
    names = [argument.arg for argument in listed if argument is not None]
    return [name for name in names if name not in ("self", "cls") and not name.startswith("_")]


def without_args_section(checkout: Checkout) -> list[str]:
    """Public functions of `ARGS_FROM` or more parameters whose docstring does not explain them.

    Hooks that a library calls (`on_...`, `configure_...`, overrides) are documented by that library.
    """
    return [
        f"{module.name}:{function.name}"
        for module in checkout.modules
        for function in public_functions(module.tree)
        if len(parameters(function)) >= ARGS_FROM
        and not _is_hook(function)
        and "Args:" not in (ast.get_docstring(function) or "")
    ]


def _is_hook(function: Function) -> bool:
    decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in function.decorator_list}
    return bool(decorators & {"override", "overload"}) or "trainer" in parameters(function)


def bare_tensors(checkout: Checkout) -> Counter[str]:
    """How often an argument, a result or a field of each package is a `Tensor` without a shape."""
    found: Counter[str] = Counter()
    for module in checkout.modules:
        for node in module.nodes:
            if isinstance(node, ast.arg | ast.AnnAssign):
                hint = node.annotation
            else:
                hint = node.returns if isinstance(node, Function) else None
            if hint is not None:
                found[module.name.partition("/")[0]] += _bare_tensors(hint)
    return +found


def _bare_tensors(hint: ast.AST) -> int:
    """`Tensor` in a hint, but for the first argument of jaxtyping's `Float[Tensor, "batch token"]`."""
    if isinstance(hint, ast.Subscript) and isinstance(hint.slice, ast.Tuple):
        first, *others = hint.slice.elts
        if _is_tensor(first) and len(others) == 1 and isinstance(others[0], ast.Constant | ast.JoinedStr):
            return 0
    return int(_is_tensor(hint)) or sum(_bare_tensors(child) for child in ast.iter_child_nodes(hint))


def _is_tensor(node: ast.AST) -> bool:
    return isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in ("Tensor", "torch.Tensor")


def num_any(checkout: Checkout) -> int:
    """How often `Any` stands in the code, imports not counted."""
    return sum(isinstance(node, ast.Name) and node.id == "Any" for module in checkout.modules for node in module.nodes)


def is_private(name: str) -> bool:
    """Whether a name has a leading underscore, and is not a dunder."""
    return name.startswith("_") and not name.startswith("__") and name not in TUPLE_METHODS | {"_"}


def _own_names(checkout: Checkout) -> set[str]:
    """Private names that the package itself defines: functions, classes, variables, attributes of `self`."""
    found = set()
    for module in checkout.modules:
        for node in module.nodes:
            if isinstance(node, Function | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _root(node) in ("self", "cls"):
                found.add(node.attr)
    return {name for name in found if is_private(name)}


def _root(node: ast.AST) -> str | None:
    """The name that a chain of attributes begins with: `trainer` of `trainer.strategy._lightning_module`."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def private_touches(checkout: Checkout) -> list[str]:
    """Uses of private parts of `LIBRARIES` outside of compat files.

    What is imported by a private name or from a private module; and attributes with a leading underscore (and
    DeepSpeed's `ds_...`) that the package defines nowhere, whatever object they are of.
    """
    own = _own_names(checkout)
    return [
        f"{module.name}:{line} {name}"
        for module in checkout.modules
        if not _is_compat(module)
        for line, name in sorted(_touches(module, own))
    ]


def _is_compat(module: Module) -> bool:
    return module.name.endswith("_compat.py") or module.name.rpartition("/")[2].startswith("deepspeed")


def _touches(module: Module, own: set[str]) -> set[tuple[int, str]]:
    found = set()
    for node in module.nodes:
        if isinstance(node, ast.ImportFrom | ast.Import):
            origin = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            names = [origin + alias.name for alias in node.names]
            found |= {
                (node.lineno, name)
                for name in names
                if name.partition(".")[0] in LIBRARIES and any(is_private(part) for part in name.split("."))
            }
        elif isinstance(node, ast.Attribute):
            library = module.imported.get(_root(node) or "", "").partition(".")[0]
            of_library = library in LIBRARIES or (not library and node.attr not in own)
            if (is_private(node.attr) and of_library) or node.attr.startswith("ds_"):
                found.add((node.lineno, node.attr))
    return found


def _names(module: Module, pattern: re.Pattern[str]) -> bool:
    return any(pattern.search(text) for text in (*module.identifiers, *module.strings))


def _is_aside(module: Module) -> bool:
    """Whether one more method adds nothing to a module: benchmarks, helpers of tests, compat files, old names."""
    aside = ("bench", "testing", "moved")
    return any(part.startswith(aside) for part in module.name.split("/")) or _is_compat(module)


def files_naming_a_method(checkout: Checkout) -> list[str]:
    """Files to touch for one more method: outside of the methods' folders and their table, code that names one."""
    return [
        module.name
        for module in checkout.modules
        if module.name.partition("/")[0] not in (*METHODS, METHOD_TABLE)
        and not _is_aside(module)
        and _names(module, NAMES_A_METHOD)
    ]


def files_naming_a_strategy(checkout: Checkout) -> list[str]:
    """Files to touch for one more strategy: code outside of the strategies' folder that names one."""
    return [
        module.name
        for module in checkout.modules
        if not module.name.startswith(STRATEGY_HOME) and not _is_aside(module) and _names(module, NAMES_A_STRATEGY)
    ]


def without_mirrored_test(checkout: Checkout) -> list[str]:
    """Modules `a/b.py` without `tests/a/test_b.py`; helpers of tests need none."""
    mirrored = {re.sub(r"([^/]+)$", r"test_\1", module.name): module for module in checkout.modules}
    return [
        module.name
        for test, module in mirrored.items()
        if test not in checkout.tests and not module.is_init and not module.name.startswith("testing/")
    ]


LISTS: dict[str, Callable[[Checkout], list[str]]] = {
    "loose top-level files": lambda checkout: flat_files(checkout, ""),
    "flat files in gbc": lambda checkout: flat_files(checkout, "gbc"),
    f"files over {MAX_FILE_LINES} lines": lambda checkout: [
        module.name for module in checkout.modules if len(module.text.splitlines()) > MAX_FILE_LINES
    ],
    f"functions over {MAX_FUNCTION_LINES} lines": long_functions,
    f"public functions of {ARGS_FROM}+ parameters without Args": without_args_section,
    "private touches outside compat files": private_touches,
    "files that name a method outside it": files_naming_a_method,
    "files that name a strategy outside training/strategies": files_naming_a_strategy,
    "modules without a mirrored test": without_mirrored_test,
}
"""What is counted one by one, and listed by `--details`."""


def measure(checkout: Checkout) -> dict[str, int | float | str]:
    """All numbers by their names."""
    folder, size = largest_folder(checkout)
    lengths = [num_lines(function) for module in checkout.modules for function in module.functions]
    tensors = bare_tensors(checkout)
    return {
        "files": len(checkout.modules),
        "largest folder (files)": size,
        "largest folder": folder,
        "median function (lines)": statistics.median(lengths) if lengths else 0,
        **{name: len(listed(checkout)) for name, listed in LISTS.items()},
        "Any in annotations": num_any(checkout),
        "bare Tensor in signatures and fields": tensors.total(),
        **{f"bare Tensor in {package}": number for package, number in sorted(tensors.items())},
    }


LIMITS: dict[str, int] = {
    "largest folder (files)": 14,
    "median function (lines)": 8,
    "loose top-level files": 2,
    "flat files in gbc": 3,
    f"files over {MAX_FILE_LINES} lines": 0,
    f"functions over {MAX_FUNCTION_LINES} lines": 0,
    f"public functions of {ARGS_FROM}+ parameters without Args": 0,
    "private touches outside compat files": 0,
    "files that name a method outside it": 0,
    "modules without a mirrored test": 0,
    "Any in annotations": 236,
}
"""What `--check` (in `make lint`) allows at most."""


def exceeded(checkout: Checkout) -> list[str]:
    """Numbers above their limit, with what was counted."""
    numbers = measure(checkout)
    return [
        "\n  ".join([f"{name}: {numbers[name]}, at most {limit}", *(LISTS[name](checkout) if name in LISTS else [])])
        for name, limit in LIMITS.items()
        if float(numbers[name]) > limit
    ]


def main(argv: list[str] | None = None) -> None:
    """Prints the numbers of a checkout."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkout", type=Path, nargs="?", default=Path(__file__).parents[1])
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to FILE")
    parser.add_argument("--details", action="store_true", help="also list what was counted")
    parser.add_argument("--check", action="store_true", help="only fail where a number is above its limit")
    options = parser.parse_args(argv)
    checkout = read_checkout(options.checkout)
    if options.check:
        sys.exit("\n".join(exceeded(checkout)) or None)
    numbers = measure(checkout)
    width = max(map(len, numbers))
    for name, number in numbers.items():
        print(f"{name:<{width}}  {number}")
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=2) + "\n")
    if options.details:
        for name, listed in LISTS.items():
            print(f"\n{name}", *listed(checkout), sep="\n  ")


if __name__ == "__main__":
    main(sys.argv[1:])
