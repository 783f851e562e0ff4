"""The legends of axes are whole: whatever a signature names stands in them."""

import re
from pathlib import Path

import pytest

import framework.core.shapes
import framework.pra.shapes

AXES = re.compile(r'(?:Float|Int|Int64|Bool|UInt8)\[[\w.]+, "([^"]*)"\]')
LEGENDS = {"core": (framework.core.shapes,), "pra": (framework.pra.shapes, framework.core.shapes)}


def legend(*modules: object) -> set[str]:
    rows = [line for module in modules for line in (module.__doc__ or "").splitlines() if line.startswith("| ")]
    return {word.strip() for row in rows for word in row.split("|")[1].split(",")}


@pytest.mark.parametrize("package", LEGENDS)
def test_every_axis_of_a_signature_stands_in_the_legend(package: str):
    folder = Path(framework.__path__[0]) / package
    texts = {path: path.read_text() for path in folder.rglob("*.py")}
    named = {axis.lstrip("*") for text in texts.values() for shape in AXES.findall(text) for axis in shape.split()}
    assert named
    assert named <= legend(*LEGENDS[package]), "axes without a legend"
