"""A batch moves as a whole, also under Lightning."""

import torch
from lightning.pytorch.utilities import move_data_to_device

from framework.data.batch import ImageBatch


def test_batch_moves_to_a_device():
    batch = ImageBatch(
        images=torch.zeros(2, 3, 4, 4), labels=torch.tensor([0, 1]), indices=torch.tensor([7, 8]), epoch=5
    )
    for moved in (batch.to("meta"), move_data_to_device(batch, torch.device("meta"))):
        assert isinstance(moved, ImageBatch)
        assert {moved.images.device.type, moved.labels.device.type} == {"meta"}
        assert moved.indices.tolist() == [7, 8]
        assert (moved.epoch, len(moved)) == (5, 2)
