"""Decoding: the bytes of an image file to a grayscale or colour picture."""

import io
from contextlib import suppress

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_JPEG = b"\xff\xd8\xff"
_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")


class UnreadableImage(Exception):
    """Bytes that are no image that can be used; the message is the reason."""


def decode_pixels(
    data: bytes, *, channels: int, out: UInt8[np.ndarray, "height width channel"] | None = None
) -> UInt8[np.ndarray, "high wide channel"]:
    """Decodes an image to 1 (grayscale) or 3 (RGB) channels of 8 bits.

    The usual JPEGs go straight to libjpeg-turbo, which Pillow calls too: the same pixels without parsing in Python.

    Args:
        data: the image file's bytes.
        channels: 1 or 3.
        out: a place for the pixels that may be used, and is what returns then; only where the size is the image's.

    Raises:
        UnreadableImage: as `decode_image`.
    """
    if data.startswith(_JPEG):
        # Whatever is left or refused here is Pillow's to convert or to refuse: CMYK, colours that are to be gray.
        with suppress(ValueError):
            height, width, space, _ = simplejpeg.decode_jpeg_header(data)
            if space == "Gray" or (space in ("YCbCr", "RGB") and channels == 3):
                wanted = "GRAY" if channels == 1 else "RGB"
                if out is None or out.shape[:2] != (height, width):
                    return simplejpeg.decode_jpeg(data, wanted)
                simplejpeg.decode_jpeg(data, wanted, buffer=out)
                return out
    pixels = np.array(to_mode(decode_image(data), channels=channels))
    return pixels.reshape(*pixels.shape[:2], channels)


def decode_image(data: bytes) -> Image.Image:
    """Decodes every pixel of an image, in the file's own mode.

    The EXIF orientation is ignored, as the usual ImageNet pipelines do. Of an animation, the first frame counts.

    Raises:
        UnreadableImage: no known format, truncated, or with pixels whose range is unknown.
    """
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except Exception as error:  # Pillow's decoders raise whatever a broken file makes them fail on.
        reason = str(error) or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "not an image of a known format" if data else "an empty file"
        raise UnreadableImage(reason) from None
    if image.mode == "F":
        raise UnreadableImage("float pixels, whose range is unknown")
    return image


def to_mode(image: Image.Image, *, channels: int) -> Image.Image:
    """The image with 1 (grayscale) or 3 (RGB) channels of 8 bits.

    Sixteen bits are scaled to eight; transparent pixels are laid over white, since the colour under them is arbitrary.
    """
    if image.mode in _SIXTEEN_BIT_MODES:
        values = np.asarray(image).astype(np.float64) / 257
        image = Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    wanted = "L" if channels == 1 else "RGB"
    return image if image.mode == wanted else image.convert(wanted)
