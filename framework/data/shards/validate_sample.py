"""What a sample's bytes are: whether they can be used, and the facts that a manifest counts."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from framework.core.text_files import parse_json
from framework.data.images.decoding import read_header, read_image
from framework.data.images.eight_bits import to_channels
from framework.data.images.formats import usual_suffix
from framework.data.images.notes import CONSTANT, Note
from framework.data.images.options import DEFAULT, ReadOptions, UnreadableImage
from framework.data.images.transforms import ImageTransform
from framework.data.shards.manifest import Kind

_SAMPLED_SIDE = 32
"""Rows and columns that the spread of an image's colours is taken from, at least."""
_CONSTANT_DEVIATION = 1.0


class UnreadableSample(Exception):
    """Bytes that are no sample; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a sample is.

    Attributes:
        size: "WIDTHxHEIGHT" in pixels, as training sees it; empty for an episode.
        mode: Pillow's name of the pixel format; empty for an episode.
        suffix: the usual one of its format, without a dot.
        notes: what is worth telling about an image that can be used.
    """

    size: str = ""
    mode: str = ""
    suffix: str = "json"
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrainingPixels:
    """What training will ask of an image.

    Attributes:
        channels: 1 for gray, 3 for RGB.
        size: side of the square that it is resized and cropped to, in pixels; without it, it is left as it is.
    """

    channels: Literal[1, 3] = 3
    size: int | None = None

    def make_of(self, pixels: UInt8[np.ndarray, "height width channel"]) -> None:
        """Does with the pixels of an image what training does."""
        pixels = to_channels(pixels, self.channels)
        if self.size is not None:
            square = np.empty((self.size, self.size, self.channels), dtype=np.uint8)
            ImageTransform(size=self.size, channels=self.channels).fit(pixels, square)


def validate_sample(
    data: bytes,
    *,
    kind: Kind,
    header_only: bool = False,
    options: ReadOptions = DEFAULT,
    training: TrainingPixels | None = None,
) -> Facts:
    """The facts about a sample.

    Args:
        data: an image file, or a JSON object in UTF-8.
        kind: which of them.
        header_only: don't decode an image's pixels.
        options: how images are read.
        training: also make of an image's pixels what training would.

    Raises:
        UnreadableSample: no image that can be used, or no JSON object.
    """
    if kind == "episodes":
        _parse_object(data)
        return Facts()
    try:
        if header_only:
            facts, notes = read_header(data, options=options), ()
        else:
            picture = read_image(data, options=options)
            facts, notes = picture.facts, (CONSTANT,) if is_nearly_constant(picture.pixels) else ()
            if training is not None:
                training.make_of(picture.pixels)
    except UnreadableImage as error:
        raise UnreadableSample(str(error)) from None
    return Facts(
        size=f"{facts.width}x{facts.height}",
        mode=facts.mode,
        suffix=usual_suffix(facts.format),
        notes=(*facts.notes, *notes),
    )


def is_nearly_constant(pixels: UInt8[np.ndarray, "height width channel"]) -> bool:
    """Whether the values of each channel, 0..255, deviate from their mean by less than 1 (root mean square)."""
    rows, columns = (max(1, side // _SAMPLED_SIDE) for side in pixels.shape[:2])
    return bool((pixels[::rows, ::columns].std((0, 1)) < _CONSTANT_DEVIATION).all())


def _parse_object(data: bytes) -> None:
    try:
        value = parse_json(data)
    except ValueError as error:
        raise UnreadableSample(str(error)) from None
    if not isinstance(value, dict):
        raise UnreadableSample(f"JSON, but not an object ({type(value).__name__})")
