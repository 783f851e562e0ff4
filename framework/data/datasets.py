"""The datasets of both kinds of shard sets: images and episodes."""

import json
from typing import Any

import numpy as np
import torch

from framework.data.batch import EpisodeBatch, PixelBatch
from framework.data.images import UnreadableImage
from framework.data.loader import BadSample, OnBadSample, ShardDataset
from framework.data.mixing import JoinedShards
from framework.data.order import Samples
from framework.data.transforms import ImageTransform, SampleRandom


class ImageDataset(ShardDataset[PixelBatch]):
    """Decoded images.

    Args:
        shards, seed, on_bad_sample: as in `ShardDataset`.
        transform: from bytes to pixels.
    """

    def __init__(
        self,
        shards: JoinedShards,
        transform: ImageTransform,
        *,
        seed: int = 0,
        on_bad_sample: OnBadSample = "stop",
    ) -> None:
        super().__init__(shards, seed=seed, on_bad_sample=on_bad_sample)
        self.transform = transform

    def decode(self, data: bytes, passed: int, number: int) -> np.ndarray:
        try:
            return self.transform.pixels(data, SampleRandom(self.seed, passed, number))
        except UnreadableImage as error:
            raise BadSample(str(error)) from None

    def batch(self, samples: Samples) -> PixelBatch:
        size, channels = self.transform.size, self.transform.channels
        pixels = _shareable(len(samples), size, size, channels)
        loaded = self.load(samples, pixels.numpy())
        return PixelBatch(
            pixels=pixels,
            labels=torch.tensor(loaded.labels),
            indices=torch.tensor(loaded.numbers),
            epoch=samples.epoch,
            passes=_tensor(samples.passes),
            replaced=tuple(loaded.replaced),
        )


class EpisodeDataset(ShardDataset[EpisodeBatch]):
    """Parsed JSON."""

    def decode(self, data: bytes, passed: int, number: int) -> Any:
        try:
            return json.loads(data)
        except ValueError as error:
            raise BadSample(str(error)) from None

    def batch(self, samples: Samples) -> EpisodeBatch:
        episodes: list[Any] = [None] * len(samples)
        loaded = self.load(samples, episodes)
        return EpisodeBatch(
            episodes=tuple(episodes),
            indices=torch.tensor(loaded.numbers),
            epoch=samples.epoch,
            passes=_tensor(samples.passes),
            replaced=tuple(loaded.replaced),
        )


def _tensor(numbers: np.ndarray | None) -> torch.Tensor | None:
    # A copy: the numbers may be a view of a larger array.
    return None if numbers is None else torch.from_numpy(numbers.copy())


def _shareable(*shape: int) -> torch.Tensor:
    """Uninitialised bytes; in a worker in shared memory, where the main process reads them without a copy."""
    if torch.utils.data.get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    storage = torch.UntypedStorage._new_shared(int(np.prod(shape)))
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)
