"""The command of a training in a process of its own."""

import sys
from collections.abc import Mapping, Sequence


def fit_command(recipe: str, settings: Mapping[str, object], options: Sequence[str] = ()) -> list[str]:
    """`framework fit` with a recipe, by this interpreter.

    Args:
        recipe: path of the recipe.
        settings: values by dotted key, in place of the recipe's.
        options: further words of the command; what they set again counts.
    """
    return [sys.executable, "-m", "framework.cli.main", "fit", "--config", recipe, *as_words(settings), *options]


def as_words(settings: Mapping[str, object]) -> list[str]:
    """Settings by dotted key as options of a command."""
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]
