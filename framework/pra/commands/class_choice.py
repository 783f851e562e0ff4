"""Classes as a user gives them, by name or by number, as the numbers that a model knows."""

from collections.abc import Sequence
from difflib import get_close_matches

from framework.core.errors import ConfigError

Classes = list[int | str] | str
"""A list of numbers and names, or names and numbers with commas between them."""


def chosen_classes(wanted: Classes | None, num_classes: int, names: Sequence[str] | None) -> list[int]:
    """The numbers of classes, in the order in which they are wanted.

    A word is the class of that name; where none is called so, it may be a number. What a list gives as a number is one.

    Args:
        wanted: by the user; None for all.
        num_classes: of the model.
        names: of its classes by their numbers, where they are known.

    Raises:
        ConfigError: no class at all, or one that the model does not know.
    """
    if wanted is None:
        return list(range(num_classes))
    known = list(names or ())
    if isinstance(wanted, str):
        wanted = [wanted] if wanted in known else [word.strip() for word in wanted.split(",")]
    if not [word for word in wanted if word != ""]:
        raise ConfigError("no class is chosen", hint="name some, or leave out --classes for all of them")
    return [_number(word, num_classes, known) for word in wanted]


def _number(word: int | str, num_classes: int, names: list[str]) -> int:
    if isinstance(word, str) and word in names:
        return names.index(word)
    number = int(word) if isinstance(word, int) or word.isdecimal() else None
    if number is not None and 0 <= number < num_classes:
        return number
    numbers = f"use classes 0 to {num_classes - 1}"
    if number is not None:
        raise ConfigError(f"class {number} is out of range", hint=numbers)
    if not names:
        raise ConfigError(f"class {word!r}: the checkpoint does not say what its classes are called", hint=numbers)
    near = get_close_matches(str(word), names, n=1) or names[:5]
    more = ", ..." if len(near) > 1 and len(names) > len(near) else ""
    raise ConfigError(f"class {word!r} is not one of the {num_classes} classes", hint=f"use {', '.join(near)}{more}")
