"""The legend names every axis that a shape uses."""

import re
from typing import Any

from framework.core import shapes


def test_every_axis_is_in_the_legend():
    legend = re.findall(r"^\| ([\w, ]+) \|", shapes.__doc__, re.MULTILINE)[1:]
    named = {axis for line in legend for axis in line.split(", ")}
    kinds: dict[str, Any] = {name: kind for name, kind in vars(shapes).items() if hasattr(kind, "dim_str")}
    assert {"Images", "Labels"} <= kinds.keys()
    # The import of jaxtyping's own names brings no shapes.
    for name, kind in kinds.items():
        assert set(kind.dim_str.split()) <= named, name
