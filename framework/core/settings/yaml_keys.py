"""Where the keys of a YAML text stand, for messages about them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

import yaml

KeyPath = tuple[str, ...]
"""Keys from the top of a file to a place in it; places of lists as numbers."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key in a YAML file.

    Attributes:
        line: counted from 1.
        holds: what kind of value; `null` where there is none.
        text: of a plain value.
    """

    line: int
    holds: Literal["mapping", "list", "value", "null"]
    text: str = ""


def read_keys(text: str) -> dict[KeyPath, Key]:
    """Every key of a YAML text with its line; the text is one that `framework.core.text_files.parse_yaml` has read."""
    root = cast("yaml.Node | None", yaml.compose(text, Loader=yaml.SafeLoader))  # pyright: ignore[reportUnknownMemberType]
    return {} if root is None else dict(_keys(root, ()))


def _keys(node: yaml.Node, path: KeyPath) -> Iterator[tuple[KeyPath, Key]]:
    """The keys below a node with their lines; what an alias stands for has its keys where it is written."""
    if isinstance(node, yaml.SequenceNode):
        for number, each in enumerate(node.value):
            if each.start_mark.index > node.start_mark.index:
                yield from _keys(each, (*path, str(number)))
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            name, line = key.value, key.start_mark.line + 1
            yield (*path, name), _key(line, value)
            if value.start_mark.index > key.start_mark.index:
                yield from _keys(value, (*path, name))


def _key(line: int, value: yaml.Node) -> Key:
    if isinstance(value, yaml.MappingNode):
        return Key(line=line, holds="mapping")
    if isinstance(value, yaml.SequenceNode):
        return Key(line=line, holds="list", text="a list")
    return Key(line=line, holds="null" if value.tag == "tag:yaml.org,2002:null" else "value", text=str(value.value))
