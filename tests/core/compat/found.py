"""Looking up private parts of other libraries for the tests of the compat files."""

from importlib import import_module
from importlib.metadata import version
from typing import Any

import pytest


def find(library: str, path: str, use: str) -> Any:
    """What stands at `module:name.name`; fails with what moved, in which version, and what it is used for."""
    module, _, names = path.partition(":")
    try:
        found: Any = import_module(module)
        for name in filter(None, names.split(".")):
            found = getattr(found, name)
    except (ImportError, AttributeError):
        pytest.fail(moved(library, path, use))
    return found


def moved(library: str, path: str, use: str) -> str:
    return f"{library} {version(library)} has moved or renamed {path}, which framework uses to {use}"
