"""What sampling cannot do without."""

import pytest

from framework.bench.gpu.sampling import floor
from framework.bench.gpu.shapes import TINY


def test_the_floor_of_sampling_by_hand():
    found = floor(TINY, num_images=10, steps=3)
    # Head: 4 -> 32, context 32 -> 32, times 256 -> 32 -> 32, a block of 96 + 32 + 32 rows, modulation 64, 32 -> 4.
    head = 4 * 32 + 32 * 32 + (256 + 32) * 32 + 160 * 32 + 64 * 32 + 32 * 4
    # Of the transformer the class embedding and slots count too, which is nothing beside the rest of large models.
    assert found["tflop"] > 2 * 4 * 10 * 3 * head / 1e12
    assert found["cache_gb"] == pytest.approx(2 * 2 * 2 * 32 * 10 * 4 * 4 / 2 / 1e9)
