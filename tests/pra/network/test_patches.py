"""Pixel tokens: their order by hand, and back."""

import pytest
import torch

from framework.core.errors import ConfigError, DataError
from framework.pra.network.patches import patchify, tokens_per_side, unpatchify


@pytest.mark.parametrize(("size", "patch", "channels"), [(4, 2, 3), (6, 2, 1), (6, 3, 3), (4, 4, 3), (4, 1, 1)])
def test_unpatchify_is_the_inverse(size: int, patch: int, channels: int):
    images = torch.randn(2, channels, size, size)
    tokens = patchify(images, patch)
    assert tokens.shape == (2, (size // patch) ** 2, channels * patch**2)
    assert torch.equal(unpatchify(tokens, patch, channels), images)


def test_order_of_tokens_and_values():
    # The value at (row, column, channel) is the number "channel row column".
    places = torch.arange(4)
    image = 100 * torch.arange(3)[:, None, None] + 10 * places[:, None] + places
    tokens = patchify(image[None].float(), 2)[0]
    assert tokens.shape == (4, 12)
    assert tokens[0].tolist() == [0, 100, 200, 1, 101, 201, 10, 110, 210, 11, 111, 211]
    assert tokens[1].tolist() == [2, 102, 202, 3, 103, 203, 12, 112, 212, 13, 113, 213]
    assert tokens[2].tolist() == [20, 120, 220, 21, 121, 221, 30, 130, 230, 31, 131, 231]


@pytest.mark.parametrize(("size", "patch"), [(5, 2), (4, 8), (4, 0), (0, 2)])
def test_indivisible_sizes(size: int, patch: int):
    with pytest.raises(ConfigError, match=f"image_size {size} is not divisible by patch_size {patch}: choose a patch"):
        tokens_per_side(size, patch)


def test_patchify_checks_the_images():
    with pytest.raises(ConfigError, match="image_size 5 is not divisible by patch_size 2"):
        patchify(torch.zeros(1, 3, 5, 5), 2)
    with pytest.raises(DataError, match="images are 4x6: crop them to a square"):
        patchify(torch.zeros(1, 3, 4, 6), 2)
