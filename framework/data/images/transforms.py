"""From an image file's bytes to a tensor."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8, UInt64
from PIL import Image
from torch import Tensor

from framework.core.errors import ConfigError, DataError
from framework.data.images.decoding import decode_pixels
from framework.data.images.options import DEFAULT, ReadOptions, UnreadableImage


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """How images are given to training.

    Attributes:
        size: side of the square images in pixels; larger and smaller ones are resized. Needed for images.
        channels: 3 for RGB, 1 for grayscale.
        crop: where the square is cut from an image that is not square: "random" (training only) or "center".
        flip: mirror training images left and right with probability 1/2.
        read: how the files become pixels; without it, as each set's manifest says that it was made with.

    Raises:
        ConfigError: a size out of range.
    """

    size: int | None = None
    channels: Literal[1, 3] = 3
    crop: Literal["random", "center"] = "center"
    flip: bool = False
    read: ReadOptions | None = None

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise ConfigError(f"images.size is {self.size}", hint="give at least 1")

    def training_transform(self) -> "ImageTransform":
        """From bytes to pixels, augmented. Raises ConfigError without a size."""
        return replace(self.evaluation_transform(), crop=self.crop, flip=self.flip)

    def evaluation_transform(self) -> "ImageTransform":
        """The same without augmentation."""
        if self.size is None:
            raise ConfigError("data.images.size is not set", hint="give the side of the images in pixels")
        return ImageTransform(size=self.size, channels=self.channels, read=self.read)


@dataclass(frozen=True, kw_only=True)
class ImageTransform:
    """Decode, resize so that the shorter side fits, crop to a square, mirror.

    Resizing halves with a box filter while the image is at least twice too large, then goes on bicubically: the
    practice of the ImageNet generators since ADM (Dhariwal and Nichol 2021, `center_crop_arr`), without aliasing.
    Of an image that is much longer than wide, only the square is resized, so that memory stays bounded.

    Attributes:
        size: side of the square in pixels.
        channels: 1 for grayscale, 3 for RGB.
        crop: place of the square along the longer side.
        flip: mirror left and right with probability 1/2.
        read: how the files become pixels; the defaults of `ReadOptions` without it.
    """

    size: int
    channels: Literal[1, 3] = 3
    crop: Literal["random", "center"] = "center"
    flip: bool = False
    read: ReadOptions | None = None

    def __call__(
        self, data: bytes, rng: "SampleRandom | None" = None, *, name: str = "an image"
    ) -> Float[Tensor, "channel height width"]:
        """Transforms one image.

        Args:
            data: the image file's bytes.
            rng: what random crops and flips are drawn from; needed only for them.
            name: of the image, for messages.

        Returns:
            float32 in [-1, 1].

        Raises:
            DataError: the image cannot be decoded.
        """
        pixels = np.empty((self.size, self.size, self.channels), dtype=np.uint8)
        try:
            mirrored = self.place(data, pixels, rng)
        except UnreadableImage as error:
            hint = "see what is wrong with: framework shards check"
            raise DataError(f"{name} cannot be decoded ({error})", hint=hint) from None
        return normalise(torch.from_numpy(pixels).unsqueeze(0), torch.arange(int(mirrored)))[0]

    def place(
        self, data: bytes, pixels: UInt8[np.ndarray, "height width channel"], rng: "SampleRandom | None" = None
    ) -> bool:
        """The same before mirroring and normalisation: puts the bytes of the square into `pixels`.

        Args:
            data: the image file's bytes.
            pixels: gets the square's bytes, 0..255.
            rng: what random crops and flips are drawn from; needed only for them.

        Returns:
            Whether the image is still to be mirrored.

        Raises:
            UnreadableImage: the image cannot be decoded.
        """
        mirrored = False
        if self.flip:
            assert rng is not None, "a random flip needs an rng"
            mirrored = rng.random() < 0.5
        decoded = decode_pixels(data, channels=self.channels, options=self.reading, out=pixels)
        if decoded is not pixels:
            self.fit(decoded, pixels, rng)
        return mirrored

    @property
    def reading(self) -> ReadOptions:
        """How files are read."""
        return DEFAULT if self.read is None else self.read

    def mirrored(
        self, seed: int, passes: Int[np.ndarray, "samples"], numbers: Int[np.ndarray, "samples"]
    ) -> Bool[np.ndarray, "samples"]:
        """Which of some samples `place` would have mirrored, by the first random number of each.

        Args:
            seed: first number of the samples' keys.
            passes: second.
            numbers: third.
        """
        if not self.flip:
            return np.zeros(len(numbers), dtype=bool)
        return first_randoms(seed, passes, numbers) < 0.5

    def crop_random(self, *key: int) -> "SampleRandom | None":
        """What `fit` draws the crop of a sample from, as `place` does; None where nothing is drawn."""
        if self.crop != "random":
            return None
        rng = SampleRandom(*key)
        if self.flip:
            rng.random()
        return rng

    def fit(
        self,
        decoded: UInt8[np.ndarray, "high wide channel"],
        pixels: UInt8[np.ndarray, "height width channel"],
        rng: "SampleRandom | None" = None,
    ) -> None:
        """Resizes and crops a decoded image into `pixels`.

        Args:
            decoded: of `channels` channels and any size.
            pixels: gets the square.
            rng: what a random crop is drawn from; needed only for one.
        """
        height, width = decoded.shape[:2]
        shorter = min(height, width)
        if max(height, width) <= _LONGEST_WHOLE * shorter:
            if shorter != self.size:
                decoded = _resize(decoded, self.size)
            top, left = self._corner(decoded.shape[0], decoded.shape[1], rng)
            pixels[...] = decoded[top : top + self.size, left : left + self.size]
            return
        # Enlarged whole, a line of pixels would take gigabytes.
        long_side = round(max(height, width) * self.size / shorter)
        corner = self._corner(*((long_side, self.size) if height > width else (self.size, long_side)), rng)
        top, left = (min(round(place * shorter / self.size), max(height, width) - shorter) for place in corner)
        square = decoded[top : top + shorter, left : left + shorter]
        pixels[...] = square if shorter == self.size else _resize(square, self.size)

    def _corner(self, height: int, width: int, rng: "SampleRandom | None") -> tuple[int, int]:
        """Top and left of the square in an image of these sides, one of which is `size`."""
        if self.crop == "random" and height != width:
            assert rng is not None, "a random crop needs an rng"
            return rng.integers(height - self.size + 1), rng.integers(width - self.size + 1)
        return (height - self.size) // 2, (width - self.size) // 2


def normalise(
    pixels: UInt8[Tensor, "batch height width channel"], mirrored: Int[Tensor, "mirrored"]
) -> Float[Tensor, "batch channel height width"]:
    """Bytes 0..255 to float32 -1..1, v / 127.5 - 1, and some of them mirrored; on whatever device they are.

    Args:
        pixels: bytes.
        mirrored: places in the batch.
    """
    images = torch.empty(pixels.permute(0, 3, 1, 2).shape, dtype=torch.float32, device=pixels.device)
    images.copy_(pixels.permute(0, 3, 1, 2))
    if len(mirrored):
        chosen = mirrored.to(pixels.device)
        images[chosen] = pixels[chosen].flip(2).permute(0, 3, 1, 2).float()
    return images.div_(127.5).sub_(1)


class SampleRandom:
    """The random numbers of one sample in one epoch, the same in any worker, batch or process.

    SplitMix64 (Steele, Lea and Flood 2014, figure 16) from a state that mixes the key; a generator of NumPy takes as
    long to make as a tenth of a small image to decode.

    Args:
        key: whole numbers from 0: seed, epoch, sample number.
    """

    def __init__(self, *key: int) -> None:
        self._state = 0
        for number in key:
            self._state = self._next() ^ number

    def random(self) -> float:
        """Uniform in [0, 1)."""
        return (self._next() >> 11) * 2.0**-53

    def integers(self, end: int) -> int:
        """Uniform in [0, end)."""
        return self._next() * end >> 64

    def _next(self) -> int:
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        mixed = self._state
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MASK
        return mixed ^ mixed >> 31


def first_randoms(
    seed: int, passes: Int[np.ndarray, "samples"], numbers: Int[np.ndarray, "samples"]
) -> Float[np.ndarray, "samples"]:
    """`SampleRandom(seed, passes[i], numbers[i]).random()` for all i.

    Args:
        seed: first number of the keys.
        passes: second.
        numbers: third.
    """
    state = np.zeros(len(numbers), dtype=np.uint64)
    for part in (np.full(1, seed & _MASK, dtype=np.uint64), passes.astype(np.uint64), numbers.astype(np.uint64)):
        state = _mixed(state + _STEP) ^ part
    return (_mixed(state + _STEP) >> np.uint64(11)) * 2.0**-53


def _mixed(state: UInt64[np.ndarray, "samples"]) -> UInt64[np.ndarray, "samples"]:
    mixed = (state ^ state >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return mixed ^ mixed >> np.uint64(31)


_MASK = 2**64 - 1
_STEP = np.uint64(0x9E3779B97F4A7C15)
_LONGEST_WHOLE = 8
"""Images with a larger ratio of their sides are cropped before they are resized, on the grid of their own pixels."""


def _resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """The image with a shorter side of `size` pixels."""
    image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    if min(image.size) != size:
        scale = size / min(image.size)
        wanted = (max(size, round(image.width * scale)), max(size, round(image.height * scale)))
        image = image.resize(wanted, Image.Resampling.BICUBIC)
    return np.array(image).reshape(image.height, image.width, -1)
