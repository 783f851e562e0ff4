"""Sizes are architectures that can be made, each smaller than the one before."""

from dataclasses import replace

import pytest

from framework.pra.commands.comparison.parts import num_parameters
from framework.pra.network.config import PRAConfig
from framework.pra.planning.sizes import sizes_of

BASE = PRAConfig(image_size=64, patch_size=8, num_classes=1)


def test_each_size_is_a_model_and_smaller_than_the_one_before():
    sizes = sizes_of({})
    counts = [num_parameters(replace(BASE, **size)) for size in sizes]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 100e6
    assert counts[-1] < 1e6


def test_one_of_them_is_nearly_the_smallest_named_one():
    (size,) = (each for each in sizes_of({}) if each["width"] == 768)
    assert (size["depth"], size["num_heads"], size["head_width"], size["head_depth"]) == (11, 12, 1024, 6)
    large = replace(BASE, image_size=256, patch_size=16, num_classes=1000, **size)
    assert num_parameters(large) == pytest.approx(135e6, rel=0.02)
