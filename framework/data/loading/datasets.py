"""The datasets of both kinds of shard sets: images and episodes."""

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8

from framework.core.compat.torch_compat import shared_storage
from framework.data.images.alike import AlikeDecoder
from framework.data.images.options import UnreadableImage
from framework.data.images.transforms import ImageTransform, SampleRandom
from framework.data.loading.batch import EpisodeBatch, PixelBatch, Replaced
from framework.data.loading.loader import BadSample, OnBadSample, ShardDataset, passes_of
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
        self._decoders = [AlikeDecoder(channels=each.channels, options=each.reading) for each in self._transforms]

    def num_bytes(self, num_samples: int) -> int:
        return num_samples * self.transform.size**2 * self.transform.channels

    def batch(self, samples: Samples, buffer: int | None = None) -> PixelBatch | InBuffer:
        shape = (len(samples), self.transform.size, self.transform.size, self.transform.channels)
        buffers = self.buffers
        if buffers is None or buffer is None:
            pixels = _shareable(*shape)
            return PixelBatch(pixels=pixels, **with_tensors(self._decoded(samples, pixels.numpy())))
        others = self._decoded(samples, buffers.view(buffer, shape))
        return InBuffer(key=buffers.key, buffer=buffer, shape=shape, others=others)

    def _decoded(self, samples: Samples, pixels: UInt8[np.ndarray, "batch height width channel"]) -> dict[str, Any]:
        """Decodes samples into their places; the other fields of their batch, with arrays for tensors."""
        filled = self._fill(samples, pixels)
        return {
            "mirrored": np.flatnonzero(filled.mirrored),
            "labels": filled.labels,
            "indices": filled.numbers,
            # A copy: the passes may be a view of a larger array.
            "passes": None if samples.passes is None else samples.passes.copy(),
            "epoch": samples.epoch,
            "replaced": tuple(filled.replaced),
        }

    def _fill(self, samples: Samples, pixels: UInt8[np.ndarray, "batch height width channel"]) -> "_Filled":
        """Decodes samples into their places, in the order in which they lie on the disk.

        What is not plain is left for the end, and then done one by one in the order of the batch: so the same sample is
        named first, and replaced by the same one, as if all were done so.
        """
        numbers, passes = samples.numbers.copy(), passes_of(samples)
        filled = _Filled(
            numbers=numbers,
            labels=self.shards.labels(numbers),
            mirrored=self.transform.mirrored(self.seed, np.array(passes), numbers),
            replaced=[],
        )
        transforms, is_one, left = self._transforms, len(self._transforms) == 1, []
        for each in self._decoders:
            each.look_again()
        transform, decoder, wanted = transforms[0], self._decoders[0], numbers.tolist()
        for place, data in self.shards.read_many(numbers):
            if data is None:
                left.append(place)
                continue
            if not is_one:
                which = self.shards.set_of(wanted[place])
                transform, decoder = transforms[which], self._decoders[which]
            slot = pixels[place]
            try:
                decoded = decoder.decode(data, slot)
            except UnreadableImage:
                left.append(place)
                continue
            if decoded is not slot:
                transform.fit(decoded, slot, transform.crop_random(self.seed, passes[place], wanted[place]))

        def decode(place: int, data: bytes, passed: int, number: int) -> None:
            try:
                transform = transforms[self.shards.set_of(number)]
                filled.mirrored[place] = transform.place(data, pixels[place], SampleRandom(self.seed, passed, number))
            except UnreadableImage as error:
                raise BadSample(str(error)) from None

        for place in sorted(left):
            number, label, bad = self.load_one(place, wanted[place], passes[place], decode)
            filled.numbers[place], filled.labels[place] = number, label
            filled.replaced.extend(bad)
        return filled


@dataclass(frozen=True, kw_only=True)
class _Filled:
    """What is known of a batch's images besides their pixels; the arrays may be written to."""

    numbers: Int[np.ndarray, "batch"]
    labels: Int[np.ndarray, "batch"]
    mirrored: Bool[np.ndarray, "batch"]
    replaced: list[Replaced]


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
