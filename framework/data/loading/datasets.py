"""The datasets of both kinds of shard sets: images and episodes."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from framework.core.compat.torch_compat import shared_storage
from framework.data.images.options import UnreadableImage
from framework.data.images.transforms import ImageTransform, SampleRandom
from framework.data.loading.batch import EpisodeBatch, PixelBatch
from framework.data.loading.loader import BadSample, OnBadSample, ShardDataset
from framework.data.loading.shared_buffers import InBuffer, with_tensors
from framework.data.sampling.mixing import JoinedShards
from framework.data.sampling.order import Samples


class ImageDataset(ShardDataset[PixelBatch]):
    """Decoded images.

    Args:
        shards: as in `ShardDataset`.
        seed: as there.
        on_bad_sample: as there.
        transform: from bytes to pixels; where it does not say how files are read, each set's manifest does.
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
        self._transforms = tuple(replace(transform, read=transform.read or each.manifest.read) for each in shards.sets)

    def num_bytes(self, num_samples: int) -> int:
        return num_samples * self.transform.size**2 * self.transform.channels

    def batch(self, samples: Samples, buffer: int | None = None) -> PixelBatch | InBuffer:
        shape = (len(samples), self.transform.size, self.transform.size, self.transform.channels)
        buffers = self.buffers
        pixels = _shareable(*shape) if buffers is None or buffer is None else buffers.view(buffer, shape)
        places, mirrored = pixels.numpy(), []

        def decode(place: int, data: bytes, passed: int, number: int) -> None:
            try:
                transform = self._transforms[self.shards.set_of(number)]
                if transform.place(data, places[place], SampleRandom(self.seed, passed, number)):
                    mirrored.append(place)
            except UnreadableImage as error:
                raise BadSample(str(error)) from None

        loaded = self.load(samples, decode)
        others = {
            "mirrored": np.array(mirrored, dtype=np.int64),
            "labels": np.array(loaded.labels, dtype=np.int64),
            "indices": np.array(loaded.numbers, dtype=np.int64),
            # A copy: the passes may be a view of a larger array.
            "passes": None if samples.passes is None else samples.passes.copy(),
            "epoch": samples.epoch,
            "replaced": tuple(loaded.replaced),
        }
        if buffers is None or buffer is None:
            return PixelBatch(pixels=pixels, **with_tensors(others))
        return InBuffer(key=buffers.key, buffer=buffer, shape=shape, others=others)


class EpisodeDataset(ShardDataset[EpisodeBatch]):
    """Parsed JSON."""

    def batch(self, samples: Samples, buffer: int | None = None) -> EpisodeBatch:
        episodes: list[Any] = [None] * len(samples)

        def decode(place: int, data: bytes, passed: int, number: int) -> None:
            try:
                episodes[place] = json.loads(data)
            except ValueError as error:
                raise BadSample(str(error)) from None

        loaded = self.load(samples, decode)
        return EpisodeBatch(
            episodes=tuple(episodes),
            indices=torch.tensor(loaded.numbers),
            epoch=samples.epoch,
            passes=None if samples.passes is None else torch.from_numpy(samples.passes.copy()),
            replaced=tuple(loaded.replaced),
        )


def _shareable(*shape: int) -> UInt8[torch.Tensor, "..."]:
    """Uninitialised bytes; in a worker in shared memory, where the main process reads them without a copy."""
    if torch.utils.data.get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    storage = shared_storage(int(np.prod(shape)))
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)
