"""Batches on their way to a GPU, copied while it computes with the ones before."""

from typing import Any

import torch
from torch import Tensor

from framework.data.loading.batch import EpisodeBatch, ImageBatch, PixelBatch

Batch = ImageBatch | PixelBatch | EpisodeBatch


class SideStream:
    """Copies batches on a stream of its own.

    The host runs ahead of the device, since nothing waits for it between two logs: it asks for the copy of the next
    batch while the device is at the last one, and only the first kernel that reads a batch waits for its copy.

    Args:
        device: a GPU, which the batches go to.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)

    def copy(self, batch: Batch) -> Batch:
        """The batch on the device, from page-locked memory without a wait."""
        main = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._stream):
            copied = batch.to(self.device)
        main.wait_stream(self._stream)
        for tensor in _tensors(copied):
            # Its memory is not given to another copy before the main stream is done with it.
            tensor.record_stream(main)
        return copied


def _tensors(batch: Batch) -> list[Tensor]:
    values: list[Any] = list(vars(batch).values())
    return [value for value in values if isinstance(value, Tensor) and value.is_cuda]
