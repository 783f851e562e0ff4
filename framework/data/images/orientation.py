"""Which way up a picture is: the EXIF orientation, read and applied."""

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

UPRIGHT = 1
_SIDEWAYS = range(5, 9)
_INVERSE = {6: 8, 8: 6}
_METADATA = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, or XMP's where EXIF has none: 1 (upright) to 8; 1 for anything else."""
    if image.format != "TIFF" and not any(key in image.info for key in _METADATA):
        return UPRIGHT
    value = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    return value if isinstance(value, int) and 1 <= value <= 8 else UPRIGHT


def upright_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """The sides of a picture once it has been turned upright.

    Args:
        width: as it is stored, in pixels.
        height: likewise.
        orientation: 1 to 8.

    Returns:
        Width and height in pixels.
    """
    return (height, width) if orientation in _SIDEWAYS else (width, height)


def turn(pixels: UInt8[np.ndarray, "high wide channel"], orientation: int) -> UInt8[np.ndarray, "height width channel"]:
    """The picture turned upright from how a camera of this orientation has stored it (EXIF 2.32, tag 0x0112)."""
    match orientation:
        case 2:
            turned = pixels[:, ::-1]
        case 3:
            turned = pixels[::-1, ::-1]
        case 4:
            turned = pixels[::-1]
        case 5:
            turned = pixels.transpose(1, 0, 2)
        case 6:
            turned = np.rot90(pixels, -1)
        case 7:
            turned = pixels[::-1, ::-1].transpose(1, 0, 2)
        case 8:
            turned = np.rot90(pixels)
        case _:
            return pixels
    return np.ascontiguousarray(turned)


def turn_back(
    pixels: UInt8[np.ndarray, "high wide channel"], orientation: int
) -> UInt8[np.ndarray, "height width channel"]:
    """The inverse of `turn`."""
    return turn(pixels, _INVERSE.get(orientation, orientation))
