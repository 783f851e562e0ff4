"""Which sizes are refused, and which options make no sense."""

import pytest

from framework.core.errors import ConfigError
from framework.data.images.options import ReadOptions, UnreadableImage


@pytest.mark.parametrize(
    ("options", "size", "reason"),
    [
        ({"min_side": 8}, (7, 100), "7x100 pixels, a side below min_side 8"),
        ({"min_side": 8}, (8, 100), None),
        ({"max_aspect": 2.5}, (251, 100), "251x100 pixels, longer than max_aspect 2.5"),
        ({"max_aspect": 2.5}, (100, 250), None),
        ({"max_pixels": 1000}, (25, 41), "25x41 pixels, more than max_pixels 1,000"),
        ({"max_pixels": 1000}, (25, 40), None),
        ({}, (30_000, 1), None),
        ({}, (9500, 9500), "more than max_pixels 89,478,485"),
    ],
)
def test_sizes(options: dict, size: tuple[int, int], reason: str | None):
    read = ReadOptions(**options)
    if reason is None:
        read.check_size(*size)
    else:
        with pytest.raises(UnreadableImage, match=reason):
            read.check_size(*size)


@pytest.mark.parametrize("options", [{"min_side": 0}, {"max_pixels": 0}, {"max_aspect": 0.5}])
def test_numbers_out_of_range(options: dict):
    with pytest.raises(ConfigError, match=f"{next(iter(options))} is .*give at least 1"):
        ReadOptions(**options)
