"""The legend of axes: no signature of gbc uses a word that it does not explain."""

import re
from pathlib import Path

import framework.gbc
from framework.gbc import shapes

AXES = re.compile(r'(?:Float|Int|Bool)\[Tensor, "([^"]*)"\]')
ALIASES = re.compile(r'^"""`([a-z ]+)`', re.MULTILINE)
"""The axes of an alias whose lengths differ."""


def test_every_axis_stands_in_the_legend():
    assert shapes.__doc__ is not None
    rows = re.findall(r"^\| ([\w, ]+) \|", shapes.__doc__, re.MULTILINE)
    legend = {axis for row in rows for axis in row.split(", ")} - {"axis"}
    (folder,) = map(Path, framework.gbc.__path__)
    used: dict[str, set[str]] = {}
    for path in folder.rglob("*.py"):
        text = path.read_text()
        for axes in AXES.findall(text) + (ALIASES.findall(text) if path.name == "shapes.py" else []):
            for axis in axes.replace("*", "").split():
                if axis not in ("_", "...") and not axis.isdecimal():
                    used.setdefault(axis, set()).add(str(path.relative_to(folder)))
    unknown = {axis: sorted(paths) for axis, paths in used.items() if axis not in legend}
    assert not unknown, f"explain these axes in framework/gbc/shapes.py: {unknown}"
    assert legend <= used.keys(), f"nothing uses {sorted(legend - used.keys())}"
