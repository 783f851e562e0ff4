"""Parsers of command lines whose errors are one line."""

import re
from typing import Any, NoReturn, cast

from jsonargparse import ArgumentParser, Namespace

from framework.core.moved.recipe_keys import explain_moved_key
from framework.tracking.paths import expand_paths


class OneLineParser(ArgumentParser):
    """A parser whose errors are one line and whose yes-or-no options need no value: `--strict` is `--strict true`.

    Settings may begin with `~` or `$NAME/`: what is made of them sees the expanded path, and a recipe that is saved
    keeps what was written, for another home or another machine.
    """

    def add_argument(self, *args: str, **kwargs: Any) -> Any:
        if kwargs.get("type") is bool:
            kwargs |= {"nargs": "?", "const": True}
        return super().add_argument(*args, **kwargs)

    def instantiate(self, namespace: Namespace, *args: Any, **kwargs: Any) -> Namespace:
        """What the settings make, with every path expanded: the one place where that happens.

        Args:
            namespace: the settings.
            *args: as jsonargparse has them.
            **kwargs: as jsonargparse has them.
        """
        return super().instantiate(cast(Namespace, expand_paths(namespace)), *args, **kwargs)

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
