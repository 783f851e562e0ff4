"""The record that crosses from the loader to the training: one micro-batch of images."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ImageBatch:
    """One micro-batch of images.

    Lightning moves it to the device and the loader pins it: both look for the methods of the same name.

    Attributes:
        images: pixels, float32 in [-1, 1].
        labels: class numbers, int64 in [0, classes).
        indices: each sample's number in its shard set, int64.
        epoch: the pass over the shard set that the samples belong to, from 0; their augmentation depends on it.
    """

    images: Float[Tensor, "batch channel height width"]
    labels: Int[Tensor, "batch"]
    indices: Int[Tensor, "batch"]
    epoch: int

    def __len__(self) -> int:
        return self.images.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "ImageBatch":
        """The batch on another device; the indices stay on the CPU, where seeds are made of them without a wait."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=non_blocking),
            labels=self.labels.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> "ImageBatch":
        """The batch in page-locked memory, which a GPU copies from without waiting."""
        return replace(
            self,
            images=self.images.pin_memory(),
            labels=self.labels.pin_memory(),
        )
