"""Parsers of command lines whose errors are one line."""

import re
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from framework.core.moved.recipe_keys import explain_moved_key


class OneLineParser(ArgumentParser):
    """A parser whose errors are one line and whose yes-or-no options need no value: `--strict` is `--strict true`."""

    def add_argument(self, *args: str, **kwargs: Any) -> Any:
        if kwargs.get("type") is bool:
            kwargs |= {"nargs": "?", "const": True}
        return super().add_argument(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        cause = explain_moved_key(message) or _first_cause(message)
        self.exit(2, f"error: {cause} (see: {self.prog.replace(' [options]', '')} --help)\n")


def _first_cause(message: str) -> str:
    """One line of a parser's message: where it lists a cause for each type that a value could have, the first."""
    message = message.partition("Given value type:")[0]
    _, listed, causes = message.partition("Errors:")
    if listed:
        message = re.split(r"\n\s*- ", causes.strip().removeprefix("- "))[0]
    return " ".join(message.split())
