"""Frozen records to JSON values and back, checked."""

import types
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

RecordT = TypeVar("RecordT")


def to_json(value: Any) -> Any:
    """A record, a tuple or a plain value as what `json.dumps` writes."""
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    return value


def from_json(record: type[RecordT], value: Any) -> RecordT:
    """The record of a parsed JSON value.

    Raises:
        ValueError: a missing or unknown field, or a value of another type; names the field.
    """
    return _decode(record, value, "")


def _decode(kind: Any, value: Any, path: str) -> Any:
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _decode_record(kind, value, path)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        inner = [argument for argument in arguments if argument is not type(None)]
        return None if value is None else _decode(inner[0], value, path)
    if origin is Literal:
        _check(value in arguments, path, f"one of {', '.join(map(str, arguments))}", value)
        return value
    if origin is tuple:
        _check(isinstance(value, list), path, "a list", value)
        if arguments[-1] is Ellipsis:
            return tuple(_decode(arguments[0], item, f"{path}[{index}]") for index, item in enumerate(value))
        _check(len(value) == len(arguments), path, f"{len(arguments)} values", value)
        pairs = enumerate(zip(arguments, value, strict=True))
        return tuple(_decode(argument, item, f"{path}[{index}]") for index, (argument, item) in pairs)
    if origin is dict:
        _check(isinstance(value, dict), path, "an object", value)
        return {key: _decode(arguments[1], item, f"{path}.{key}") for key, item in value.items()}
    if kind is float:
        _check(isinstance(value, int | float) and not isinstance(value, bool), path, "a number", value)
        return float(value)
    _check(type(value) is kind, path, kind.__name__, value)
    return value


def _decode_record(kind: Any, value: Any, path: str) -> Any:
    _check(isinstance(value, dict), path, "an object", value)
    hints = _hints(kind)
    unknown, missing = value.keys() - hints.keys(), hints.keys() - value.keys()
    if unknown or missing:
        words = [f"unknown {name!r}" for name in sorted(unknown)] + [f"no {name!r}" for name in sorted(missing)]
        raise ValueError(f"{path or 'record'}: {', '.join(words)}")
    return kind(
        **{name: _decode(hint, value[name], f"{path}.{name}" if path else name) for name, hint in hints.items()}
    )


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _check(good: bool, path: str, expected: str, value: Any) -> None:
    if not good:
        raise ValueError(f"{path or 'record'} is {str(value)[:40]!r}, not {expected}")
