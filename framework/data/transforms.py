"""From an image file's bytes to a tensor."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from framework.data.images import UnreadableImage, decode_image, to_mode
from framework.errors import DataError


@dataclass(frozen=True, kw_only=True)
class ImageTransform:
    """Decode, resize so that the shorter side fits, crop to a square, flip.

    Resizing halves with a box filter while the image is at least twice too large, then goes on bicubically: the
    practice of the ImageNet generators since ADM (Dhariwal and Nichol 2021, `center_crop_arr`), without aliasing.
    The EXIF orientation is ignored, as there.

    Attributes:
        size: side of the square in pixels.
        channels: 1 for grayscale, 3 for RGB.
        crop: place of the square along the longer side.
        flip: mirror left and right with probability 1/2.
    """

    size: int
    channels: Literal[1, 3] = 3
    crop: Literal["random", "center"] = "center"
    flip: bool = False

    def __call__(
        self, data: bytes, rng: np.random.Generator | None = None, *, name: str = "an image"
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
        try:
            image = to_mode(decode_image(data), channels=self.channels)
        except UnreadableImage as error:
            mend = "see what is wrong with: framework shards check"
            raise DataError(f"{name} cannot be decoded ({error})", mend=mend) from None
        image = _resize(image, self.size)
        left, top = (image.width - self.size) // 2, (image.height - self.size) // 2
        if self.crop == "random":
            assert rng is not None, "a random crop needs an rng"
            left = int(rng.integers(image.width - self.size + 1))
            top = int(rng.integers(image.height - self.size + 1))
        image = image.crop((left, top, left + self.size, top + self.size))
        if self.flip:
            assert rng is not None, "a random flip needs an rng"
            if rng.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image, dtype=np.float32)).reshape(self.size, self.size, self.channels)
        return pixels.permute(2, 0, 1).contiguous() / 127.5 - 1


def sample_rng(seed: int, epoch: int, number: int) -> np.random.Generator:
    """The random numbers of one sample in one epoch, the same in any worker, batch or process."""
    return np.random.default_rng((seed, epoch, number))


def _resize(image: Image.Image, size: int) -> Image.Image:
    """The image with a shorter side of `size` pixels."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    if min(image.size) == size:
        return image
    scale = size / min(image.size)
    wanted = (max(size, round(image.width * scale)), max(size, round(image.height * scale)))
    return image.resize(wanted, Image.Resampling.BICUBIC)
