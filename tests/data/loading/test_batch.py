"""A batch moves as a whole, also under Lightning, and is normalised on the device."""

import torch
from lightning.pytorch.utilities import move_data_to_device

from framework.data.loading.batch import EpisodeBatch, ImageBatch, PixelBatch


def test_batch_moves_to_a_device():
    batch = ImageBatch(
        images=torch.zeros(2, 3, 4, 4), labels=torch.tensor([0, 1]), indices=torch.tensor([7, 8]), epoch=5
    )
    for moved in (batch.to("meta"), move_data_to_device(batch, torch.device("meta"))):
        assert isinstance(moved, ImageBatch)
        assert {moved.images.device.type, moved.labels.device.type} == {"meta"}
        assert moved.indices.tolist() == [7, 8]
        assert (moved.epoch, len(moved)) == (5, 2)


def test_pixels_move_and_become_images():
    pixels = torch.arange(48, dtype=torch.uint8).view(2, 2, 4, 3) * 5
    numbers = {"labels": torch.tensor([1, 0]), "indices": torch.tensor([7, 8]), "epoch": 5}
    batch = PixelBatch(pixels=pixels, mirrored=torch.tensor([1]), **numbers)
    moved = move_data_to_device(batch, torch.device("meta"))
    assert (moved.pixels.device.type, moved.labels.device.type, moved.indices.tolist()) == ("meta", "meta", [7, 8])
    images = batch.images()
    assert isinstance(images, ImageBatch)
    expected = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
    assert torch.equal(images.images, torch.stack([expected[0], expected[1].flip(2)]))
    assert images.images.is_contiguous()
    assert (images.labels.tolist(), images.indices.tolist(), images.epoch) == ([1, 0], [7, 8], 5)


def test_episodes_stay_where_they_are():
    batch = EpisodeBatch(episodes=({"a": 1}, 2), indices=torch.tensor([7, 8]), epoch=5)
    assert move_data_to_device(batch, torch.device("meta")) is batch
    assert len(batch) == 2


def test_passes():
    changes = {"labels": torch.tensor([0, 1]), "indices": torch.tensor([7, 8]), "epoch": 5}
    images = torch.zeros(2, 1, 1, 1)
    assert ImageBatch(images=images, **changes).sample_passes() == [5, 5]
    assert ImageBatch(images=images, passes=torch.tensor([3, 9]), **changes).sample_passes() == [3, 9]
