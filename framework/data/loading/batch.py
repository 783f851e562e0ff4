"""The records that cross from the loader to the training: one micro-batch of images or of episodes."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from framework.data.images.transforms import normalise


def _is_unwaited(device: torch.device | str, asked: bool | None) -> bool:
    """Whether a copy is not waited for; from a GPU to the host it has to be."""
    return torch.device(device).type == "cuda" if asked is None else asked


@dataclass(frozen=True, kw_only=True)
class Replaced:
    """A bad sample that another one stands in for.

    Attributes:
        number: of the bad sample in its shard set.
        problem: what is wrong with it.
    """

    number: int
    problem: str


@dataclass(frozen=True, kw_only=True)
class ImageBatch:
    """One micro-batch of images.

    Lightning moves it to the device and the loader pins it: both look for the methods of the same name.

    Attributes:
        images: pixels, float32 in [-1, 1].
        labels: class numbers, int64 in [0, classes).
        indices: each sample's number in its shard set, int64; in mixed sets those of the first come first.
        epoch: the pass over the shard set that the samples belong to, from 0; their augmentation depends on it.
        passes: where sets are mixed, each sample's pass over its own set, int64; otherwise None: `epoch` for all.
        replaced: the bad samples that others in this batch stand in for.
    """

    images: Float[Tensor, "batch channel height width"]
    labels: Int[Tensor, "batch"]
    indices: Int[Tensor, "batch"]
    epoch: int
    passes: Int[Tensor, "batch"] | None = None
    replaced: tuple[Replaced, ...] = ()

    def __len__(self) -> int:
        return self.images.shape[0]

    def sample_passes(self) -> list[int]:
        """Each sample's pass over its own set: with its index, what its random numbers may depend on."""
        return [self.epoch] * len(self) if self.passes is None else self.passes.tolist()

    def to(self, device: torch.device | str, non_blocking: bool | None = None) -> "ImageBatch":
        """The batch on another device; the indices stay on the CPU, where seeds are made of them without a wait.

        Args:
            device: gets images and labels.
            non_blocking: the host does not wait for the copies; by default where they go to a GPU, which orders them
                before what it computes with them.
        """
        unwaited = _is_unwaited(device, non_blocking)
        return replace(
            self,
            images=self.images.to(device, non_blocking=unwaited),
            labels=self.labels.to(device, non_blocking=unwaited),
        )

    def pin_memory(self) -> "ImageBatch":
        """The batch in page-locked memory, which a GPU copies from without waiting."""
        return replace(
            self,
            images=self.images.pin_memory(),
            labels=self.labels.pin_memory(),
        )


@dataclass(frozen=True, kw_only=True)
class PixelBatch:
    """What the loader yields for images: an `ImageBatch` before normalisation, a quarter of its bytes.

    The data module normalises it on the training's device.

    Attributes:
        pixels: bytes 0..255.
        mirrored: places in the batch of the images that are still to be mirrored left and right.
        labels, indices, epoch, passes, replaced: as in `ImageBatch`.
    """

    pixels: UInt8[Tensor, "batch height width channel"]
    mirrored: Int[Tensor, "mirrored"]
    labels: Int[Tensor, "batch"]
    indices: Int[Tensor, "batch"]
    epoch: int
    passes: Int[Tensor, "batch"] | None = None
    replaced: tuple[Replaced, ...] = ()

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool | None = None) -> "PixelBatch":
        """The batch on another device; the indices stay on the CPU.

        Args:
            device: gets pixels, labels and which are mirrored.
            non_blocking: as in `ImageBatch.to`.
        """
        unwaited = _is_unwaited(device, non_blocking)
        return replace(
            self,
            pixels=self.pixels.to(device, non_blocking=unwaited),
            labels=self.labels.to(device, non_blocking=unwaited),
            mirrored=self.mirrored.to(device, non_blocking=unwaited),
        )

    def pin_memory(self) -> "PixelBatch":
        """The batch in page-locked memory."""
        return replace(
            self,
            pixels=self.pixels.pin_memory(),
            labels=self.labels.pin_memory(),
            mirrored=self.mirrored.pin_memory(),
        )

    def images(self) -> ImageBatch:
        """The normalised batch, on the same device."""
        return ImageBatch(
            images=normalise(self.pixels, self.mirrored),
            labels=self.labels,
            indices=self.indices,
            epoch=self.epoch,
            passes=self.passes,
            replaced=self.replaced,
        )


@dataclass(frozen=True, kw_only=True)
class EpisodeBatch:
    """One micro-batch of episodes: tasks or traces in JSON.

    Attributes:
        episodes: the parsed JSON values.
        indices, epoch, passes, replaced: as in `ImageBatch`.
    """

    episodes: tuple[Any, ...]
    indices: Int[Tensor, "batch"]
    epoch: int
    passes: Int[Tensor, "batch"] | None = None
    replaced: tuple[Replaced, ...] = ()

    def __len__(self) -> int:
        return len(self.episodes)

    def sample_passes(self) -> list[int]:
        """Each sample's pass over its own set: with its index, what its random numbers may depend on."""
        return [self.epoch] * len(self) if self.passes is None else self.passes.tolist()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "EpisodeBatch":
        """Itself: there is nothing in it that a device computes with."""
        return self

    def pin_memory(self) -> "EpisodeBatch":
        """Itself."""
        return self
