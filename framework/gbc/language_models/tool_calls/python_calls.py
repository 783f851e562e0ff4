"""Calls of tools as Python writes them, such as `[weather(city="Oslo"), time()]`: read, never run."""

import ast
from typing import cast

from framework.core.serialization import JsonDict

_NAMES = {"true": True, "false": False, "null": None}
"""JSON's words, which models write in Python too."""


def parse_python_calls(text: str) -> list[tuple[str, JsonDict]]:
    """The names and arguments of a call, of a list of calls, or of calls in lines of their own.

    Raises:
        ValueError: anything else: what is computed, and arguments without a name, cannot be understood.
    """
    try:
        lines = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError("not a call of Python's") from None
    if not lines or not all(isinstance(line, ast.Expr) for line in lines):
        raise ValueError("not a call of Python's")
    values = [line.value for line in lines if isinstance(line, ast.Expr)]
    listed = values[0].elts if len(values) == 1 and isinstance(values[0], ast.List) else values
    return [_call(each) for each in listed]


def _call(node: ast.expr) -> tuple[str, JsonDict]:
    if not isinstance(node, ast.Call):
        raise ValueError("not a call of Python's")
    if node.args:
        raise ValueError("an argument without a name")
    arguments: JsonDict = {}
    for each in node.keywords:
        if each.arg is None or each.arg in arguments:
            raise ValueError("two arguments of one name, or arguments with **")
        arguments[each.arg] = cast("JsonDict", _value(each.value))
    # Llama's tools of its own are called as `NAME.call(...)`.
    return ast.unparse(node.func).removesuffix(".call"), arguments


def _value(node: ast.expr) -> object:
    """A JSON value that stands in a program as it is."""
    if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, str | int | float)):
        return node.value
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(each) for each in node.elts]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _value(node.operand)
        if isinstance(number, int | float) and not isinstance(number, bool):
            return -number
    if isinstance(node, ast.Dict):
        keys = [None if key is None else _value(key) for key in node.keys]
        if all(isinstance(key, str) for key in keys) and len(set(keys)) == len(keys):
            return dict(zip(keys, map(_value, node.values), strict=True))
    raise ValueError(f"{ast.unparse(node)[:40]} is not a value of JSON")
