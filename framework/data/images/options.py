"""How an image file is read: what is applied, and what is refused."""

from dataclasses import dataclass
from typing import Literal

from framework.core.errors import ConfigError

Orientation = Literal["apply", "ignore"]
Damaged = Literal["refuse", "keep"]

DAMAGE = "damaged"
"""How the reasons begin that `ReadOptions.damaged` decides about."""

# Pillow warns of "decompression bombs" above this many pixels.
MAX_PIXELS = 89_478_485


class UnreadableImage(Exception):
    """Bytes that are not an image that can be used; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How image files become pixels: in conversion, in `framework shards check` and in training alike.

    Attributes:
        orientation: apply turns every image upright as its EXIF orientation (or the one in its XMP) says; ignore
            leaves the pixels as they are stored.
        damaged: what becomes of a file that a decoder complains about but decodes, such as a JPEG that was cut and
            given an end: refuse it, or keep what could be decoded.
        min_side: images with a shorter side are refused, in pixels.
        max_aspect: images with a larger ratio of the longer to the shorter side are refused; without it, none.
        max_pixels: images of a larger area are refused before a pixel is decoded.

    Raises:
        ConfigError: a number out of range.
    """

    orientation: Orientation = "apply"
    damaged: Damaged = "refuse"
    min_side: int = 1
    max_aspect: float | None = None
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        for name in ("min_side", "max_pixels", "max_aspect"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}", hint="give at least 1")

    def check_size(self, width: int, height: int) -> None:
        """Raises UnreadableImage for an image of a size that is not wanted; sides in pixels."""
        if width * height > self.max_pixels:
            raise UnreadableImage(f"{width}x{height} pixels, more than max_pixels {self.max_pixels:,}")
        shorter, longer = (width, height) if width < height else (height, width)
        if shorter < self.min_side:
            raise UnreadableImage(f"{width}x{height} pixels, a side below min_side {self.min_side}")
        if self.max_aspect is not None and longer > self.max_aspect * shorter:
            raise UnreadableImage(f"{width}x{height} pixels, longer than max_aspect {self.max_aspect:g}")


DEFAULT = ReadOptions()
