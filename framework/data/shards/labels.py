"""Labels as others write them, and the classes that they are of: names, or whole numbers from 0."""

import re
from collections import Counter
from collections.abc import Sequence

from framework.core.errors import ConfigError, DataError

# As pandas writes whole numbers where a cell of the column is empty. More digits than a number of classes can have are
# a name, such as an identifier.
_WHOLE = re.compile(r"(\d{1,18})(?:\.0*)?")
_FRACTION = re.compile(r"[+-]?\d*\.\d+(?:[eE][+-]?\d+)?|[+-]?\d+(?:\.\d*)?[eE][+-]?\d+")
_MOST_NUMBERED = 100_000


def refuse_doubles(names: Sequence[str]) -> None:
    """Raises ConfigError where two of the names of classes that were given are the same."""
    for name, count in Counter(names).items():
        if count > 1:
            raise ConfigError(f"{count} classes have the same name {name!r}", hint="give each a name of its own")


def whole_number(label: str) -> int | None:
    """The number that a label is: 7 of "7", "007" and "7.0"; None for a name."""
    found = _WHOLE.fullmatch(label)
    return None if found is None else int(found[1])


def classes_of(labels: set[str], given: tuple[str, ...] | None, *, where: str) -> tuple[str, ...]:
    """The classes of labels: those that were given, the numbers from 0 to the largest, or the names sorted.

    Args:
        labels: that occur, one or more.
        given: names of all classes, in the order of their numbers.
        where: the labels come from, for messages.

    Raises:
        DataError: a label that is none of those that were given, numbers that are none of classes, or some labels that
            are names and some that are numbers.
    """
    numbers = {label: number for label in labels if (number := whole_number(label)) is not None}
    if given is not None:
        foreign = sorted(label for label in labels - set(given) if numbers.get(label, len(given)) >= len(given))
        if foreign:
            problem = f"label {foreign[0]!r} in {where} is none of the {len(given)} classes that were given"
            raise DataError(problem, hint="give the names of all classes")
        return given
    names = sorted(labels - numbers.keys())
    if names and all(label in numbers or _FRACTION.fullmatch(label) for label in labels):
        problem = f"label {names[0]!r} in {where} is a number, but not a whole one"
        raise DataError(problem, hint="number the classes from 0, or give names")
    if names and numbers:
        problem = f"some labels in {where} are names ({names[0]!r}) and some numbers ({min(numbers)})"
        raise DataError(problem, hint="give the names of the numbers with --classes")
    if names:
        return tuple(names)
    largest = max(numbers.values())
    if largest > max(_MOST_NUMBERED, 10 * len(numbers)):
        problem = f"the largest label in {where} is {largest}, of {len(numbers)} different ones"
        raise DataError(problem, hint="number the classes from 0, or give names")
    return tuple(str(number) for number in range(largest + 1))
