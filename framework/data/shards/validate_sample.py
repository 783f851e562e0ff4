"""What a sample's bytes are: whether they can be used, and the facts that a manifest counts."""

import io
from dataclasses import dataclass

from PIL import Image

from framework.core.text_files import parse_json
from framework.data.images.decoding import UnreadableImage, decode_image
from framework.data.shards.manifest import Kind

# Names that WebDataset's users ask for.
_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "PPM": "ppm"}


class UnreadableSample(Exception):
    """Bytes that are no sample; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a sample is.

    Attributes:
        size: "WIDTHxHEIGHT" in pixels; empty for an episode.
        mode: Pillow's name of the pixel format; empty for an episode.
        suffix: the usual one of its format, without a dot.
    """

    size: str = ""
    mode: str = ""
    suffix: str = "json"


def validate_sample(data: bytes, *, kind: Kind, header_only: bool = False) -> Facts:
    """The facts about a sample.

    Args:
        data: an image file, or a JSON object in UTF-8.
        kind: which of them.
        header_only: don't decode an image's pixels.

    Raises:
        UnreadableSample: no image that can be used, or no JSON object.
    """
    if kind == "episodes":
        _parse_object(data)
        return Facts()
    try:
        image = _open_image(data) if header_only else decode_image(data)
    except UnreadableImage as error:
        raise UnreadableSample(str(error)) from None
    suffix = _SUFFIXES.get(image.format or "", (image.format or "").lower())
    return Facts(size=f"{image.width}x{image.height}", mode=image.mode, suffix=suffix)


def _open_image(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data))
    except Exception as error:  # Pillow's readers raise whatever a broken file makes them fail on.
        reason = str(error) if data else "an empty file"
        if data and isinstance(error, Image.UnidentifiedImageError):
            reason = "not an image of a known format"
        raise UnreadableImage(reason) from None


def _parse_object(data: bytes) -> None:
    try:
        value = parse_json(data)
    except ValueError as error:
        raise UnreadableSample(str(error)) from None
    if not isinstance(value, dict):
        raise UnreadableSample(f"JSON, but not an object ({type(value).__name__})")
