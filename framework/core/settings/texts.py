"""Texts among settings that jsonargparse would take for something else.

It reads a text again as YAML where a setting may be more than a text (`str | None`, `Any`, `dict[str, Any]`). On a
command line that is how `null` and `[1, 2]` are given; but a heading in Markdown, such as `# Draft: {draft}`, is a
comment in YAML and would become None without a word. What a file gives was read as YAML before, and is not read again.
"""

from collections.abc import Callable
from typing import Any, cast

import yaml
from jsonargparse import get_loader, set_loader

AS_WRITTEN = "as_written"
"""Mode of a parser of what a file has given: a text is that text."""

_read_yaml = cast("Callable[[str], Any]", get_loader("yaml"))


def _read(text: str) -> Any:
    value = _read_yaml(text)
    return text if value is None and text.lstrip().startswith("#") else value


set_loader("yaml", _read, exceptions=(yaml.YAMLError,))
set_loader(AS_WRITTEN, lambda text: text)
