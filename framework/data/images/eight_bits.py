"""Any pixel format of Pillow's to gray or RGB of 8 bits: by the range that the file states, never by a guess."""

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image, TiffImagePlugin

from framework.data.images.options import UnreadableImage

_PHOTOMETRIC, _BITS, _SAMPLE_FORMAT = 262, 258, 339
_WHITE_IS_ZERO, _UNSIGNED = 0, 1
_GRAY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
_PNG_BITS_AT = 24


def check_range(image: Image.Image) -> None:
    """Raises UnreadableImage for pixels of a range that nothing states; reads the header alone."""
    if image.mode == "F":
        raise UnreadableImage("float pixels, whose range is unknown")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        formats = set(_as_tuple(image.tag_v2.get(_SAMPLE_FORMAT, _UNSIGNED)))
        if image.mode in _GRAY_MODES and formats - {_UNSIGNED}:
            raise UnreadableImage(f"signed pixels of {_bits(image)} bits, whose range is unknown")
    elif image.mode.startswith("I") and image.format not in ("PNG", "PPM", "JPEG2000"):
        raise UnreadableImage(f"integer pixels ({image.mode}) of {image.format}, whose range is unknown")


def to_eight_bits(image: Image.Image, data: bytes) -> tuple[UInt8[np.ndarray, "height width channel"], bool]:
    """The pixels of a decoded image, 1 channel for gray and 3 (RGB) for colour, and whether all are transparent.

    Integers of more bits are scaled by the largest that the format can hold, v * 255 / (2^bits - 1), rounded;
    white-is-zero is inverted. Transparent pixels are laid over white, since the colour under them is arbitrary.

    Args:
        image: with its pixels loaded, and a range that `check_range` accepts.
        data: the bytes of its file.
    """
    is_gray = image.mode in _GRAY_MODES
    if image.mode.startswith("I"):
        values = np.asarray(image)
        pixels = _scaled(values, image)
        key = image.info.get("transparency")
        if isinstance(key, int):
            pixels[values == key] = 255
            return pixels[..., None], bool((values == key).all())
        return pixels[..., None], False
    if image.has_transparency_data:
        image = _with_alpha(image, data)
        is_transparent = image.getchannel("A").getextrema() == (0, 0)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    else:
        is_transparent = False
    wanted = "L" if is_gray else "RGB"
    pixels = np.array(image if image.mode == wanted else image.convert(wanted))
    return pixels.reshape(*pixels.shape[:2], -1), is_transparent


def to_channels(
    pixels: UInt8[np.ndarray, "height width channel"], channels: int
) -> UInt8[np.ndarray, "height width channels"]:
    """Gray (1 channel) and RGB (3) to either; gray of RGB is ITU-R 601's luma, as Pillow rounds it."""
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    return np.array(Image.fromarray(pixels).convert("L"))[..., None]


def _scaled(values: Integer[np.ndarray, "height width"], image: Image.Image) -> UInt8[np.ndarray, "height width"]:
    """Unsigned integers to 0..255."""
    bits, inverted = 16, False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = _bits(image)
        inverted = image.tag_v2.get(_PHOTOMETRIC, _WHITE_IS_ZERO) == _WHITE_IS_ZERO
    largest = 2**bits - 1
    if bits == 32:
        # Pillow keeps them in signed integers of as many bits.
        unsigned = values.view(np.uint32).astype(np.uint64)
        scaled = ((unsigned * 255 + largest // 2) // largest).astype(np.uint8)
    else:
        table = np.round(np.arange(2**16) * (255 / largest)).clip(0, 255).astype(np.uint8)
        scaled = table[values]
    return 255 - scaled if inverted else scaled


def _with_alpha(image: Image.Image, data: bytes) -> Image.Image:
    """The image as RGBA."""
    if image.mode in ("La", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    key = image.info.get("transparency")
    if image.format == "PNG" and image.mode in ("L", "RGB") and key is not None:
        # Pillow has scaled the pixels to 8 bits, and left the colour that stands for transparency as it was.
        bits = data[_PNG_BITS_AT]
        scale = 255 / (2**bits - 1) if bits < 8 else 1 / 2 ** (bits - 8)
        scaled = tuple(int(value * scale) for value in _as_tuple(key))
        image.info["transparency"] = scaled if image.mode == "RGB" else scaled[0]
    return image if image.mode == "RGBA" else image.convert("RGBA")


def _bits(image: TiffImagePlugin.TiffImageFile) -> int:
    return max(_as_tuple(image.tag_v2.get(_BITS, 1)))


def _as_tuple(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)
