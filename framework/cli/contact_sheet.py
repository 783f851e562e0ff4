"""The contact sheet of `framework shards peek`: images spread evenly over a set, each below its class."""

import io
from pathlib import Path

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from framework.core.console import tracked
from framework.data.images.transforms import ImageTransform
from framework.data.shards.reader import ShardSet
from framework.evaluation.grid import save_grid

_COLUMNS = 8


def save_contact_sheet(path: Path, shards: ShardSet, *, num: int, size: int) -> None:
    """Writes the middle of images of a set as a PNG file, in the set's order row by row.

    Args:
        path: of the PNG file.
        shards: of images.
        num: number of images, 1 to that of the set.
        size: side of each in pixels, at most; a smaller image keeps its own side, and is enlarged by a whole factor.

    Raises:
        DataError: an image that cannot be read or decoded.
    """
    tiles: list[Float[Tensor, "channel height width"]] = []
    captions: list[str] = []
    for number in tracked([row * len(shards) // num for row in range(num)], "images"):
        data, label = shards.read(number)
        side = min(size, _shorter_side(data, size))
        transform = ImageTransform(size=side, channels=3, read=shards.manifest.read)
        tiles.append(transform(data, name=shards.describe(number)))
        captions.append(shards.classes[label] if 0 <= label < len(shards.classes) else str(label))
    save_grid(path, tiles, columns=min(_COLUMNS, num), captions=captions)


def _shorter_side(data: bytes, otherwise: int) -> int:
    """Of an image, in pixels; another number for what is not one, which is told of when it is decoded."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return min(image.size)
    except Exception:  # Pillow's readers raise whatever a broken file makes them fail on.
        return otherwise
