"""The tools of the real systems, each with a corrupted version of it."""

import re
from collections.abc import Mapping

_PLACES = {
    "north": "Acorn House",
    "south": "Lovell Lodge",
    "east": "Carolina Inn",
    "west": "Finches Rest",
    "centre": "Gonville Hotel",
    "Thai": "Bangkok City",
    "French": "Chez Pierre",
    "Mexican": "Casa Verde",
    "Chinese": "Golden Wok",
    "Indian": "Taj Garden",
    "Italian": "Bella Roma",
    "Oxford": "TR2201",
    "Bristol": "TR3302",
    "York": "TR4403",
    "London": "TR5504",
    "Norwich": "TR6605",
    "Bath": "TR7706",
    "Leeds": "TR1234",
}
_SUM = re.compile(r"(\d{1,6})\s*([*+-])\s*(\d{1,6})")


def calculate(texts: Mapping[str, str]) -> str:
    """The result of the first sum, such as `3 * 5`, in the texts; `error` without one."""
    match = _SUM.search(" ".join(texts.values()))
    if match is None:
        return "error"
    left, sign, right = int(match[1]), match[2], int(match[3])
    return str(left * right if sign == "*" else left + right if sign == "+" else left - right)


def calculate_one_too_many(texts: Mapping[str, str]) -> str:
    """A corrupted calculator: its results are one too large."""
    found = calculate(texts)
    return found if found == "error" else str(int(found) + 1)


def find_place(texts: Mapping[str, str]) -> str:
    """The database's entry for the first known word of the texts; `nothing` without one."""
    return next((_PLACES[text.strip()] for text in texts.values() if text.strip() in _PLACES), "nothing")


def find_next_place(texts: Mapping[str, str]) -> str:
    """A corrupted database: it gives the entry after the right one."""
    places = list(_PLACES.values())
    found = find_place(texts)
    return found if found == "nothing" else places[(places.index(found) + 1) % len(places)]


def sort_list(texts: Mapping[str, str]) -> str:
    """What is listed in the texts, apart by commas, in alphabetical order."""
    things = [thing.strip() for text in texts.values() for thing in text.split(",")]
    return ", ".join(sorted(thing for thing in things if thing))


def sort_backwards(texts: Mapping[str, str]) -> str:
    """A corrupted sorter: the other way round."""
    return ", ".join(reversed(sort_list(texts).split(", ")))
