"""Copies on a side stream have the batch's values, whatever the device does meanwhile; on a GPU, real or pretended."""

import pytest
import torch

from framework.data.loading.batch import ImageBatch, PixelBatch
from framework.data.loading.device_copies import SideStream

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def pixels(number: int, size: int = 64) -> PixelBatch:
    generator = torch.Generator().manual_seed(number)
    return PixelBatch(
        pixels=torch.randint(256, (8, size, size, 3), dtype=torch.uint8, generator=generator),
        mirrored=torch.tensor([1, 5]),
        labels=torch.arange(8),
        indices=torch.arange(8),
        epoch=0,
    )


def test_batches_arrive_as_they_were_while_the_device_is_busy():
    copies = SideStream(torch.device("cuda"))
    matrix = torch.randn(1024, 1024, device="cuda")
    found: list[ImageBatch] = []
    for number in range(12):
        moved = copies.copy(pixels(number).pin_memory())
        for _ in range(20):
            matrix = (matrix @ matrix).clamp(-1, 1)
        assert isinstance(moved, PixelBatch)
        found.append(moved.images())
        del moved
    for number, batch in enumerate(found):
        expected = pixels(number).images()
        torch.testing.assert_close(batch.images.cpu(), expected.images)
        assert batch.labels.device.type == "cuda"
        assert batch.indices.device.type == "cpu"
