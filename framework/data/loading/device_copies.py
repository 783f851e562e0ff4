"""Batches on their way to a GPU, copied while it computes with the ones before."""

import torch

from framework.data.loading.batch import ImageBatch, PixelBatch


class SideStream:
    """Copies batches on a stream of its own.

    The host runs ahead of the device, since nothing waits for it between two logs: it asks for the copy of the next
    batch while the device is at the last one, and only the first kernel that reads a batch waits for its copy.

    Memory of a batch goes back to this stream, which does not know who reads it: a batch is held until the next one has
    its own, and the copy after that waits on the device until the first one is read.

    Args:
        device: a GPU, which the batches go to.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)
        self._held: ImageBatch | PixelBatch | None = None
        self._read: torch.Event | None = None

    def copy(self, batch: ImageBatch | PixelBatch) -> ImageBatch | PixelBatch:
        """The batch on the device, without a wait; the host has asked for all that reads the last one."""
        main = torch.cuda.current_stream(self.device)
        if self._read is not None:
            self._stream.wait_event(self._read)
        self._read = main.record_event()
        with torch.cuda.stream(self._stream):
            copied = batch.to(self.device)
        main.wait_stream(self._stream)
        self._held = copied
        return copied
