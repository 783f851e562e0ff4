"""Places as users write them: `~/runs/x` and `$SCRATCH/runs/x` mean what they mean in a shell."""

import os
import re
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import cast

_HOME = re.compile(r"~[\w.-]*(?=/|$)")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})(?=/)")


def expand_path(text: str) -> str:
    """A text with the home folder or the environment variable that it begins with; any other text as it is.

    A user or a variable that is not known stays too: what opens the path then names it.
    """
    if _HOME.match(text):
        # pathlib's raises for a user who is not known.
        return os.path.expanduser(text)  # noqa: PTH111
    found = _VARIABLE.match(text)
    value = os.environ.get(found[1] or found[2]) if found else None
    return value + text[found.end() :] if found and value else text


def expand_paths(value: object) -> object:
    """A setting with `expand_path` applied to every text in it: values and keys of mappings, items of lists."""
    if isinstance(value, str):
        return expand_path(value)
    # Not a subclass, which may hold more than its text.
    if type(value) is type(Path()):
        return Path(expand_path(str(value)))
    if isinstance(value, Namespace):
        expanded = type(value)()
        vars(expanded).update({name: expand_paths(item) for name, item in vars(value).items()})
        return expanded
    if isinstance(value, Mapping):
        entries = cast("Mapping[object, object]", value).items()
        return {expand_paths(key): expand_paths(item) for key, item in entries}
    if type(value) is list:
        return [expand_paths(item) for item in cast("list[object]", value)]
    if type(value) is tuple:
        return tuple(expand_paths(item) for item in cast("tuple[object, ...]", value))
    return value
