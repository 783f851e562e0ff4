"""What made a checkpoint, and how two recipes differ."""

from importlib.metadata import distributions, version

from framework.training.checkpoint.provenance import package_versions, recipe_changes
from framework.training.strategies.config import PACKAGES


def test_changes_between_recipes():
    before = "run: {dir: a}\nmodel: {width: 3, depth: 2}\ndata: {train: {x: 1}}\nresume: auto\n"
    now = "run: {dir: b}\nmodel: {width: 4, heads: 1}\ndata: {train: {x: 1}}\nresume: must\n"
    assert recipe_changes(before, now) == [
        "model.depth: 2 -> not set",
        "model.heads: not set -> 1",
        "model.width: 3 -> 4",
    ]
    assert recipe_changes(before, before) == recipe_changes(None, now) == []


def test_versions_of_what_is_installed():
    found = package_versions()
    assert found["torch"] == version("torch")
    # From its folder alone, as on a machine without an index, the framework is not an installed package.
    assert {"lightning", "numpy"} <= found.keys() <= {"framework", "torch", "lightning", "numpy", *PACKAGES}
    assert ("framework" in found) == any(distribution.name == "framework" for distribution in distributions())
