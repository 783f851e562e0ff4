"""Reading one image: the bytes of its file to gray or RGB pixels of 8 bits; conversion, check and training call this.

Of an animation or a file of several pages, the first picture counts; transparent pixels become white; ICC profiles are
not applied. `ReadOptions` say the rest.
"""

import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, TiffImagePlugin

from framework.data.images.complaints import ZEROS, Listener, jpeg_complaint, listen_to_libtiff, png_complaint
from framework.data.images.eight_bits import check_range, to_channels, to_eight_bits
from framework.data.images.notes import DAMAGED, NOT_TURNED, TRANSPARENT, TURNED, WARNING, Note
from framework.data.images.options import DAMAGE, DEFAULT, ReadOptions, UnreadableImage
from framework.data.images.orientation import UPRIGHT, orientation_of, turn, turn_back, upright_size

_JPEG = b"\xff\xd8\xff"
_SCAN = b"\xff\xda"
_SCAN_SIZES = (b"\0\x08\1", b"\0\x0a\2", b"\0\x0c\3", b"\0\x0e\4")
"""Behind it, the size of the scan's header in bytes and its number of components (ITU-T T.81, B.2.3)."""
_PNG = b"\x89PNG"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_DRAWINGS = ("EPS", "WMF", "EMF")
_NOT_FOR_TURBOJPEG = ("Could not determine", "nsupported", "not supported")
Value = TypeVar("Value")

# Without a handler its errors would go to the terminal without the name of a file; they are in ours.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What is known of an image that can be used.

    Attributes:
        format: Pillow's name of the file format.
        mode: Pillow's name of the pixel format.
        width: in pixels, as it is shown: upright unless the orientation is ignored.
        height: likewise.
        notes: what is worth telling.
    """

    format: str
    mode: str
    width: int
    height: int
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image file that has been read: its pixels, 1 channel for gray or 3 for RGB, and what is known of it."""

    pixels: UInt8[np.ndarray, "height width channel"]
    facts: ImageFacts


def decode_pixels(
    data: bytes,
    *,
    channels: int,
    options: ReadOptions = DEFAULT,
    out: UInt8[np.ndarray, "height width channel"] | None = None,
) -> UInt8[np.ndarray, "high wide channel"]:
    """The pixels of `read_image` with 1 (gray) or 3 (RGB) channels, without the facts.

    Args:
        data: the image file's bytes.
        channels: 1 or 3.
        options: how it is read.
        out: a place for the pixels that may be used, and is what returns then; only where the size is the image's.

    Raises:
        UnreadableImage: as `read_image`.
    """
    if data.startswith(_JPEG):
        plain = _read_plain_jpeg(data, channels, options, out)
        if plain is not None:
            return plain[0]
    return to_channels(_guarded(_read_any, data, options).pixels, channels)


def read_image(data: bytes, *, options: ReadOptions = DEFAULT) -> Picture:
    """Reads an image file whole.

    Raises:
        UnreadableImage: not a known format, truncated, pixels whose range is unknown, a size that the options refuse,
            or something that a decoder complains of, unless the options keep such files.
    """
    if data.startswith(_JPEG):
        plain = _read_plain_jpeg(data, None, options, None)
        if plain is not None:
            pixels, mode = plain
            facts = ImageFacts(format="JPEG", mode=mode, width=pixels.shape[1], height=pixels.shape[0])
            return Picture(pixels=pixels, facts=facts)
    reading = _guarded(_read_any, data, options)
    return Picture(pixels=reading.pixels, facts=reading.facts(options))


def read_header(data: bytes, *, options: ReadOptions = DEFAULT) -> ImageFacts:
    """What an image file's header says, without its pixels.

    Raises:
        UnreadableImage: not a known format, or what its header shows of the faults that `read_image` refuses.
    """
    return _guarded(_read_header, data, options)


def _read_plain_jpeg(
    data: bytes,
    channels: int | None,
    options: ReadOptions,
    out: UInt8[np.ndarray, "height width channel"] | None,
) -> tuple[UInt8[np.ndarray, "high wide channel"], str] | None:
    """The pixels and Pillow's mode of one of the usual JPEGs, by libjpeg-turbo, which Pillow calls too.

    None where a closer look is needed: CMYK, metadata that may turn the image, whatever libjpeg complains about, zeros.

    Args:
        data: the image file's bytes.
        channels: 1 or 3; None for those that the file has.
        options: how it is read.
        out: as in `decode_pixels`.
    """
    scan = data.find(_SCAN)
    if _may_be_turned(data, scan) or data.find(ZEROS, max(scan, 0)) >= 0:
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        if space not in ("Gray", "YCbCr", "RGB"):
            return None
        options.check_size(int(width), int(height))
        is_gray = space == "Gray"
        wanted = "GRAY" if is_gray and channels != 3 else "RGB"
        if out is not None and out.shape == (height, width, 1 if wanted == "GRAY" else 3):
            simplejpeg.decode_jpeg(data, wanted, buffer=out)
            pixels = out
        else:
            pixels = simplejpeg.decode_jpeg(data, wanted)
    except (ValueError, KeyError):  # KeyError: a subsampling that it has no name for.
        return None
    if channels == 1 and not is_gray:
        pixels = to_channels(pixels, 1)
    return pixels, "L" if is_gray else "RGB"


def _may_be_turned(data: bytes, scan: int) -> bool:
    """Whether a JPEG has metadata before its pixels, which may begin at `scan`, that may say which way up it is."""
    # What looks like the start of the pixels may stand in a colour profile.
    end = scan if data[scan + 2 : scan + 5] in _SCAN_SIZES else len(data)
    return data.find(b"Exif\0", 0, end) >= 0 or data.find(b"tiff:Orientation", 0, end) >= 0


def _guarded(read: Callable[[bytes, ReadOptions], Value], data: bytes, options: ReadOptions) -> Value:
    """What `read` returns; every failure of a decoder becomes an UnreadableImage."""
    try:
        return read(data, options)
    except UnreadableImage:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a broken file makes them fail on.
        raise UnreadableImage(_reason(error, data)) from None


class _Reading(NamedTuple):
    """An image that has been read, before its facts are put together."""

    pixels: UInt8[np.ndarray, "height width channel"]
    image: Image.Image
    orientation: int
    complaint: str
    is_transparent: bool
    warned: list[str]

    def facts(self, options: ReadOptions) -> ImageFacts:
        notes = _orientation_notes(self.orientation, options)
        if self.complaint:
            notes.append(Note(what=DAMAGED, detail=self.complaint))
        if self.is_transparent:
            notes.append(TRANSPARENT)
        notes += [Note(what=f"{WARNING}: {text}") for text in self.warned]
        height, width = self.pixels.shape[:2]
        image = self.image
        return ImageFacts(format=str(image.format), mode=image.mode, width=width, height=height, notes=tuple(notes))


def _read_any(data: bytes, options: ReadOptions) -> _Reading:
    """Reads an image by Pillow, or where that is as good and says more, by libjpeg-turbo itself."""
    with Listener() as listener:
        image = _open(data, options)
        is_tiff = image.format == "TIFF"
        # Loading turns a TIFF upright, and forgets that it did; a PNG's orientation may stand behind its pixels.
        orientation = orientation_of(image) if is_tiff else UPRIGHT
        pixels, complaint = _decode_strictly(image, data)
        _refuse(complaint, options)
        is_transparent = False
        if pixels is None:
            complaint = _load(image) or complaint
            _refuse(complaint, options)
            pixels, is_transparent = to_eight_bits(image, data)
        if is_tiff:
            pixels = pixels if options.orientation == "apply" else turn_back(pixels, orientation)
        else:
            orientation = orientation_of(image)
            pixels = turn(pixels, orientation) if options.orientation == "apply" else pixels
    return _Reading(pixels, image, orientation, complaint, is_transparent, listener.texts)


def _read_header(data: bytes, options: ReadOptions) -> ImageFacts:
    with Listener() as listener:
        image = _open(data, options)
        # Asked for its EXIF, a PNG without one before its pixels is decoded whole.
        orientation = UPRIGHT if image.format == "PNG" and "exif" not in image.info else orientation_of(image)
    notes = _orientation_notes(orientation, options) + [Note(what=f"{WARNING}: {text}") for text in listener.texts]
    width, height = image.size
    # Pillow knows a TIFF's as it will be.
    is_turned = image.format == "TIFF"
    if is_turned != (options.orientation == "apply"):
        width, height = upright_size(width, height, orientation)
    return ImageFacts(format=str(image.format), mode=image.mode, width=width, height=height, notes=tuple(notes))


def _open(data: bytes, options: ReadOptions) -> Image.Image:
    """The image with its header parsed. Raises UnreadableImage for what the header shows."""
    if Image.MAX_IMAGE_PIXELS is not None and options.max_pixels > Image.MAX_IMAGE_PIXELS:
        # Pillow has one bound for the whole process, and has been asked to go beyond it.
        Image.MAX_IMAGE_PIXELS = options.max_pixels
    image = Image.open(io.BytesIO(data))
    if image.format in _DRAWINGS:
        # Pillow has other programs draw them.
        raise UnreadableImage(f"a drawing ({image.format}), not pixels")
    options.check_size(*image.size)
    check_range(image)
    return image


def _decode_strictly(image: Image.Image, data: bytes) -> tuple[UInt8[np.ndarray, "height width channel"] | None, str]:
    """What Pillow's decoders keep quiet about, and the pixels where they were decoded on the way."""
    if image.format == "PNG":
        return None, png_complaint(data)
    if image.format not in ("JPEG", "MPO"):
        return None, ""
    try:
        pixels = simplejpeg.decode_jpeg(data, {"L": "GRAY", "RGB": "RGB"}.get(image.mode, "CMYK"))
    except (ValueError, KeyError) as error:
        is_unknown = isinstance(error, KeyError) or any(words in str(error) for words in _NOT_FOR_TURBOJPEG)
        return None, "" if is_unknown else str(error)
    return (None if image.mode == "CMYK" else pixels), jpeg_complaint(data)


def _load(image: Image.Image) -> str:
    """Decodes the pixels; returns what libtiff complained about."""
    if image.format != "TIFF" or image.info.get("compression") == "raw":
        image.load()
        return ""
    problem = None
    with listen_to_libtiff() as lines:
        try:
            image.load()
        except OSError as error:
            problem = error
    if problem is not None:
        raise UnreadableImage("; ".join((str(problem), *lines[:1])))
    return "; ".join(lines)


def _refuse(complaint: str, options: ReadOptions) -> None:
    if complaint and options.damaged == "refuse":
        raise UnreadableImage(f"{DAMAGE}: {complaint}")


def _orientation_notes(orientation: int, options: ReadOptions) -> list[Note]:
    if orientation == UPRIGHT:
        return []
    return [TURNED if options.orientation == "apply" else NOT_TURNED]


def _reason(error: Exception, data: bytes) -> str:
    """Why an image cannot be read."""
    if not data:
        return "an empty file"
    if not isinstance(error, Image.UnidentifiedImageError):
        return str(error) or type(error).__name__
    # Pillow tries its formats in turn and keeps to itself what was wrong with the right one.
    if data.startswith(_PNG):
        return f"a PNG that cannot be read: {png_complaint(data) or 'its header'}"
    if not data.startswith((_JPEG, *_TIFF)):
        return "not an image of a known format"
    try:
        if data.startswith(_JPEG):
            simplejpeg.decode_jpeg_header(data)
        else:
            TiffImagePlugin.TiffImageFile(io.BytesIO(data))
        why = "its header"
    except Exception as found:  # As in `_guarded`.
        why = str(found) or type(found).__name__
    return f"a {'JPEG' if data.startswith(_JPEG) else 'TIFF'} that cannot be read: {why}"
