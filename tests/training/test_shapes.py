"""The legend names every axis that a shape uses, and the shapes are what it says."""

import re
from typing import Any

import torch

from framework.training import shapes


def kinds() -> dict[str, Any]:
    return {name: kind for name, kind in vars(shapes).items() if hasattr(kind, "dim_str")}


def test_every_axis_is_in_the_legend():
    legend = re.findall(r"^\| ([\w*, ]+) \|", shapes.__doc__ or "", re.MULTILINE)[1:]
    named = {axis for line in legend for axis in line.split(", ")}
    assert {"Held", "Part", "Whole", "Values", "Rows", "Scalar"} <= kinds().keys()
    for name, kind in kinds().items():
        assert set(kind.dim_str.split()) - {"..."} <= named, name


def test_what_each_shape_takes():
    scalar, values, matrix = torch.tensor(1.0), torch.zeros(3), torch.zeros(3, 2)
    takes = {name: [isinstance(each, kind) for each in (scalar, values, matrix)] for name, kind in kinds().items()}
    for name in ("Held", "Part", "Whole", "AnyTensor"):
        assert takes[name] == [True, True, True], name
    assert takes["Values"] == [False, True, False]
    assert takes["Rows"] == [False, True, True]
    assert takes["Scalar"] == [True, False, False]
    assert isinstance(torch.tensor([1]), shapes.Flag)
    assert not isinstance(torch.tensor([1, 0]), shapes.Flag)
    assert isinstance(torch.get_rng_state(), shapes.RandomWords)
