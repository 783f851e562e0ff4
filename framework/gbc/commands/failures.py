"""Why tasks failed, told once for each reason."""

import re
from collections.abc import Iterable, Iterator

from framework.core.console import console

_VARIABLE = re.compile(r"\d+|'[^']*'")
"""Numbers and names: what differs between failures of one kind."""


def print_failures(failures: Iterable[str]) -> None:
    """A line for each kind of failure, the most frequent first: how often, and the first of them."""
    for count, first in failure_kinds(failures):
        console.print(f"  {count} x {first}", style="yellow")


def failure_kinds(failures: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Of failures that are alike but for numbers and names: how many, and the first."""
    kinds: dict[str, list[str]] = {}
    for failure in failures:
        kinds.setdefault(kind_of(failure), []).append(failure)
    for alike in sorted(kinds.values(), key=len, reverse=True):
        yield len(alike), alike[0]


def kind_of(failure: str) -> str:
    """What is alike in failures of one kind."""
    return _VARIABLE.sub("…", failure)
