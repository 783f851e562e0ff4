"""YAML files to frozen records and back: what users write for graphs, models and candidates."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any, TypeVar, cast

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from framework.core.errors import ConfigError
from framework.core.imports import import_object, look_in_current_folder
from framework.core.moved.import_paths import current_text
from framework.core.settings.mistakes import Given, describe_mistake
from framework.core.settings.texts import AS_WRITTEN
from framework.core.settings.yaml_keys import read_keys
from framework.core.text_files import parse_yaml, read_text
from framework.tracking.run_folder import is_written_by_run

RecordT = TypeVar("RecordT")
_INNER = re.compile(r"\A[^\n]*\n *Problem with given class_path '(?P<path>[^']+)':\n(?P<message>.*)", re.DOTALL)
"""A parser's message about a record within another."""


def read_yaml(path: str | Path) -> Any:
    """The value of a YAML file; in one that a run wrote, import paths of before a move are the new ones.

    Raises:
        ConfigError: no such file, not YAML in UTF-8, or a key that stands twice.
    """
    text = read_text(path, hint="give a YAML file", error=ConfigError)
    return parse_yaml(current_text(text) if is_written_by_run(Path(path)) else text, str(path))


def parse_record(record: type[RecordT], value: object, *, source: str, file: str | Path | None = None) -> RecordT:
    """The record whose arguments are the keys of a parsed YAML value.

    Args:
        record: a dataclass.
        value: what YAML gave.
        source: what to call it in messages.
        file: that it was read from, for messages that name the line.

    Raises:
        ConfigError: an unknown key, a value of the wrong type, or what the record finds.
    """
    # Its methods have no types.
    parser: Any = ArgumentParser(exit_on_error=False, parser_mode=AS_WRITTEN)
    parser.add_argument("--value", type=record)
    try:
        return parser.instantiate(parser.parse_object({"value": value})).value
    except (ArgumentError, TypeError) as error:
        raise _mistake(str(error), record, source, file) from None


def _mistake(message: str, record: type, source: str, file: str | Path | None) -> ConfigError:
    """The error for a parser's message about a record, or about one that is a part of it."""
    message = re.sub(r"\bvalue\.(?=\w)", "", message.replace("Group 'value' does not accept option", "Option"), count=1)
    if message.startswith("Option"):
        message = f"{message.rstrip('.')} is not accepted"
    while inner := _INNER.search(message):
        record, message = import_object(inner["path"]), dedent(inner["message"])
    parser: Any = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(record)
    files = {Path(file): read_keys(read_text(file))} if file is not None and Path(file).is_file() else {}
    told = describe_mistake(message, parser.get_defaults(skip_validation=True).keys(), Given(files=files))
    # Where the line is known, it stands behind the file's name.
    told = told if files and told.startswith(f"{file}, line ") else f"{source}: {told}"
    return ConfigError(told, hint=f"see the arguments of {record.__module__}.{record.__qualname__}")


def to_yaml(record: object) -> str:
    """The inverse of `parse_record`, without the fields that have their defaults.

    Raises:
        ConfigError: a function that has no import path.
    """
    return yaml.dump(_plain(record), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def import_function(path: str) -> Callable[..., Any]:
    """The function at `package.module:function` or `package.module.function`; also from the current folder.

    Raises:
        ConfigError: no such module or function, or a module that fails.
    """
    look_in_current_folder()
    found = import_object(path)
    if not callable(found):
        raise ConfigError(f"{path!r} is not a function", hint="give the import path of one")
    return found


def make_function(declared: str | Mapping[str, Any]) -> Callable[..., Any]:
    """The function at an import path, or what `{class_path: ..., init_args: {...}}` makes.

    Raises:
        ConfigError: an import path that leads nowhere, unknown keys, or arguments that do not fit.
    """
    if isinstance(declared, str):
        return import_function(declared)
    unknown = declared.keys() - {"class_path", "init_args"}
    if unknown or not isinstance(declared.get("class_path"), str):
        hint = "give an import path, or class_path and init_args"
        raise ConfigError(f"a function is declared with {', '.join(declared) or 'nothing'}", hint=hint)
    path = declared["class_path"]
    try:
        made = import_function(path)(**declared.get("init_args", {}))
    except TypeError as error:
        raise ConfigError(f"{path}: {error}", hint="see its arguments") from None
    if not callable(made):
        raise ConfigError(f"what {path} makes is not a function", hint="give a class whose objects can be called")
    return made


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        kept: dict[str, object] = {}
        for field in fields(value):
            item = getattr(value, field.name)
            default = field.default if field.default_factory is MISSING else field.default_factory()
            if field.init and item != default:
                kept[field.name] = _plain(item)
        return kept
    if isinstance(value, tuple | list):
        return [_plain(item) for item in cast(Sequence[object], value)]
    if callable(value):
        path = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '<object>')}"
        if "<" in path or path.startswith("__main__."):
            raise ConfigError(f"{path} has no import path", hint="give a function of a module")
        return path
    return value


class _Dumper(yaml.SafeDumper):
    """Lists in lists are indented, texts of several lines stand as they are."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # YAML takes other characters than \n for the ends of lines too, unless they are escaped.
    printable = all(line.isprintable() for line in text.split("\n"))
    style = '"' if not printable else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)  # pyright: ignore[reportUnknownMemberType]


_Dumper.add_representer(str, _text)
