"""Records to JSON values and back, checked: the one codec of everything that is written as JSON (by cattrs).

What is read is checked, never converted: "3" is not a number, a string is not a list. The only exception is an integer
where a float is asked for, since JSON knows one kind of number.

A field whose key in files is another one than its name says so: `field(metadata={"key": "samples_consumed"})`. So names
may change while files keep their keys.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, cast, get_args, get_origin

from cattrs import Converter
from cattrs.cols import (
    homogenous_tuple_structure_factory,
    list_structure_factory,
    mapping_structure_factory,  # pyright: ignore[reportUnknownVariableType]
)
from cattrs.errors import AttributeValidationNote, BaseValidationError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from framework.core.errors import FrameworkError
from framework.core.text_files import parse_json

RecordT = TypeVar("RecordT")
_Hook = Callable[[Any, Any], Any]
_Problems = tuple[list[tuple[Exception, AttributeValidationNote | IterableValidationNote]], list[Exception]]
_LONGEST_VALUE = 40

JsonDict = dict[str, Any]
"""A JSON object, such as a task; nothing says what its values are."""


def to_json(value: object) -> Any:
    """A record, a tuple or a plain value as what `json.dumps` writes."""
    return _WRITER.unstructure(value)


def from_json(
    record: type[RecordT], value: object, *, allow_missing: bool = False, ignore_unknown: bool = False
) -> RecordT:
    """The record of a parsed JSON value; the inverse of `to_json`.

    Args:
        record: a dataclass.
        value: what `json.loads` or a checkpoint gave.
        allow_missing: fields that have a default may be left out, as older files and users do.
        ignore_unknown: keys that the record does not have are passed over, as newer files have them.

    Raises:
        ValueError: a missing or unknown field, or a value of another type; names the field and the value.
        FrameworkError: what the record itself finds.
    """
    try:
        return _reader(allow_missing, ignore_unknown).structure(value, record)
    except BaseValidationError as error:
        raise _described(error) from None
    except _WrongValue as error:
        raise ValueError(f"record{error}") from None


def parse_object(text: str | bytes) -> JsonDict:
    """The JSON object of a text.

    Raises:
        ValueError: what `parse_json` finds, or another value than an object.
    """
    value = parse_json(text)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return cast("dict[str, Any]", value)


class _WrongValue(ValueError):
    """What is wrong with a value; its message goes on after the value's path."""


def _described(error: BaseException) -> Exception:
    """The first problem that cattrs has collected, with the path of its value."""
    path = ""
    while isinstance(error, BaseValidationError):
        # Both subclasses have it.
        groups = error.group_exceptions()  # pyright: ignore
        noted, others = cast("_Problems", groups)
        if not noted:
            error = others[0]
            break
        error, note = noted[0]
        step = note.name if isinstance(note, AttributeValidationNote) else note.index
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    if isinstance(error, FrameworkError):
        return error
    separator = "" if isinstance(error, _WrongValue) else ": "
    return ValueError(f"{path or 'record'}{separator}{error}")


def _unlike(value: object, expected: str) -> _WrongValue:
    return _WrongValue(f" is {str(value)[:_LONGEST_VALUE]!r}, not {expected}")


def _as_mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise _unlike(value, "an object")
    return cast("Mapping[str, object]", value)


@cache
def _reader(allow_missing: bool, ignore_unknown: bool) -> Converter:
    """The converter that checks what it reads."""
    reader = Converter()

    def record_hook(kind: type, converter: Converter) -> _Hook:
        build = cast("_Hook", make_dict_structure_fn(kind, converter, **_renamed(kind)))
        # With no regard to `init=False`: no record has such a field.
        known = {_key(each): each.default is MISSING and each.default_factory is MISSING for each in fields(kind)}
        required = {name for name, needed in known.items() if needed or not allow_missing}

        def structure(value: object, _: object) -> object:
            given = _as_mapping(value)
            unknown = set[str]() if ignore_unknown else given.keys() - known.keys()
            missing = required - given.keys()
            if unknown or missing:
                words = [f"unknown {name!r}" for name in sorted(unknown)] + [f"no {name!r}" for name in sorted(missing)]
                raise _WrongValue(f": {', '.join(words)}")
            return build(given, kind)

        return structure

    reader.register_structure_hook_factory(is_dataclass, record_hook)
    reader.register_structure_hook_factory(lambda kind: get_origin(kind) is Literal, _choice_hook)
    reader.register_structure_hook_factory(lambda kind: get_origin(kind) in (tuple, list), _sequence_hook)
    reader.register_structure_hook_factory(lambda kind: get_origin(kind) in (dict, Mapping), _mapping_hook)
    for kind in (str, int, bool):
        reader.register_structure_hook(kind, _exactly(kind))
    reader.register_structure_hook(float, _number)
    return reader


def _key(field: Field[object]) -> str:
    return field.metadata.get("key", field.name)


def _renamed(kind: type) -> dict[str, Any]:
    """Overrides for the fields whose keys are other ones, as keyword arguments of `cattrs.gen`."""
    return {each.name: override(rename=_key(each)) for each in fields(kind) if _key(each) != each.name}


def _choice_hook(kind: Any) -> _Hook:
    choices = get_args(kind)

    def structure(value: object, _: object) -> object:
        if value not in choices:
            raise _unlike(value, f"one of {', '.join(map(str, choices))}")
        return value

    return structure


def _sequence_hook(kind: Any, converter: Converter) -> _Hook:
    items = get_args(kind)

    def each_by_its_type(value: Sequence[object], _: object) -> object:
        return tuple(converter.structure(item, each) for each, item in zip(items, value, strict=True))

    build: _Hook = each_by_its_type
    num_values = len(items)
    if get_origin(kind) is list:
        build, num_values = list_structure_factory(kind, converter), None
    elif items[-1] is Ellipsis:
        build, num_values = homogenous_tuple_structure_factory(kind, converter), None

    def structure(value: object, _: object) -> object:
        if not isinstance(value, list | tuple):
            raise _unlike(value, "a list")
        given = cast("Sequence[object]", value)
        if num_values not in (None, len(given)):
            raise _unlike(given, f"{num_values} values")
        return build(given, kind)

    return structure


def _mapping_hook(kind: Any, converter: Converter) -> _Hook:
    values = dict[get_args(kind)]  # pyright: ignore[reportInvalidTypeArguments]
    build = cast("_Hook", mapping_structure_factory(values, converter))

    def structure(value: object, _: object) -> object:
        return build(_as_mapping(value), kind)

    return structure


def _exactly(kind: type) -> _Hook:
    def structure(value: object, _: object) -> object:
        if type(value) is not kind:
            raise _unlike(value, kind.__name__)
        return value

    return structure


def _number(value: object, _: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _unlike(value, "a number")
    return float(value)


def _make_writer() -> Converter:
    writer = Converter()

    def write_record(kind: type) -> Callable[[object], dict[str, Any]]:
        return make_dict_unstructure_fn(kind, writer, **_renamed(kind))

    def write_sequence(_: object) -> Callable[[Sequence[object]], list[object]]:
        return lambda values: [writer.unstructure(value) for value in values]

    writer.register_unstructure_hook_factory(is_dataclass, write_record)
    writer.register_unstructure_hook_factory(lambda kind: (get_origin(kind) or kind) in (tuple, list), write_sequence)
    return writer


_WRITER = _make_writer()
