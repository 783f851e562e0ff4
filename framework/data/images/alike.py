"""JPEGs that begin alike, as those of one size by one encoder do: their headers are read once."""

import numpy as np
import simplejpeg
from jaxtyping import UInt8

from framework.data.images.decoding import decode_pixels
from framework.data.images.options import ReadOptions

_JPEG = b"\xff\xd8\xff"
_MARKER, _SCAN = 0xFF, 0xDA
_MOST_READ = 4
"""Headers that are read anew in a batch before it is plain that they differ, as where each image has its own tables."""


class AlikeDecoder:
    """Decodes images one by one as `decode_pixels` does, and the faster the more of them have the header of the last.

    All that comes before a JPEG's pixels says how they are decoded; where it is the same to the byte, so is that.

    Args:
        channels: 1 (gray) or 3 (RGB).
        options: how files are read.
    """

    def __init__(self, *, channels: int, options: ReadOptions) -> None:
        self._channels, self._options = channels, options
        self._space = "GRAY" if channels == 1 else "RGB"
        self._header = b""
        self._shape: tuple[int, ...] = ()
        self._left = _MOST_READ

    def look_again(self) -> None:
        """Headers that differ from the last are read anew again: a batch begins."""
        self._left = _MOST_READ

    def decode(
        self, data: bytes, out: UInt8[np.ndarray, "height width channel"]
    ) -> UInt8[np.ndarray, "high wide channel"]:
        """The image's pixels: in `out` where they fit, which is what returns then, or elsewhere.

        Args:
            data: the image file's bytes.
            out: a place for an image of the right size.

        Raises:
            UnreadableImage: as `decode_pixels`.
        """
        if self._header and data.startswith(self._header) and out.shape == self._shape:
            try:
                simplejpeg.decode_jpeg(data, self._space, buffer=out)
            except ValueError:
                pass  # Told in full below.
            else:
                return out
        decoded = decode_pixels(data, channels=self._channels, options=self._options, out=out)
        # Only what needs no more than libjpeg is decoded into its place.
        if decoded is out and self._left and data.startswith(_JPEG):
            self._left -= 1
            self._header, self._shape = data[: header_bytes(data)], out.shape
        return decoded


def header_bytes(data: bytes) -> int:
    """Length of what a JPEG has before its pixels, the header of the first scan included; 0 where it is odd."""
    at = 2
    while at + 4 <= len(data) and data[at] == _MARKER:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == _SCAN:
            # Elsewhere, what looks like the first scan is what `decode_pixels` takes for it.
            return end if data.find(bytes((_MARKER, _SCAN))) == at and end <= len(data) else 0
        at = end
    return 0
