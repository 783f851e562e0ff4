"""The images that a run makes of its samples: `samples/step=NNNNNNNN.png`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

_NAME = re.compile(r"step=(\d{8,})\.png")
Item = TypeVar("Item")


def list_images(folder: Path) -> dict[int, Path]:
    """Images in a folder by their step, in its order."""
    if not folder.is_dir():
        return {}
    found = {int(match[1]): path for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))}
    return dict(sorted(found.items()))


def evenly_spaced(items: Sequence[Item], most: int) -> list[Item]:
    """At most `most` of the items, spread evenly, with the first and the last."""
    if len(items) <= most:
        return list(items)
    if most < 2:
        return list(items[-most:]) if most else []
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]
