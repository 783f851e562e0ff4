"""Grids of images as PNG files."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from framework.core.console import visible
from framework.core.errors import ConfigError
from framework.core.io import atomic_write
from framework.core.shapes import Images
from framework.evaluation.samples import quantize_images

_SMALLEST_SIDE = 64
_GAP = 2
_FONT_SIZE, _LINE = 10, 16


def save_grid(
    path: Path,
    images: Images | Sequence[Float[Tensor, "channel _ _"]],
    *,
    columns: int,
    headings: Sequence[str] = (),
    captions: Sequence[str] = (),
) -> None:
    """Write square images row by row, small ones enlarged by a whole factor without smoothing.

    Args:
        path: of the PNG file.
        images: in [-1, 1], of one number of channels; their sides may differ, and the largest sets the tiles' side.
        columns: images side by side.
        headings: a line above each column; none by default.
        captions: a line below each image; none by default.

    Raises:
        ConfigError: no image, or no column.
    """
    if len(images) < 1 or columns < 1:
        raise ConfigError(f"a grid of {len(images)} images in {columns} columns", hint="give 1 or more of both")
    largest = max(image.shape[-1] for image in images)
    side = largest * -(-_SMALLEST_SIDE // largest)
    width, top = side + 2 * _GAP, _LINE if headings else 0
    height = width + (_LINE if captions else 0)
    mode = "L" if images[0].shape[0] == 1 else "RGB"
    sheet = Image.new(mode, (columns * width, top + -(-len(images) // columns) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        tile = Image.fromarray(quantize_images(image).permute(1, 2, 0).squeeze(-1).cpu().numpy())
        zoomed = tile.width * (side // tile.width)
        tile = tile.resize((zoomed, zoomed), Image.Resampling.NEAREST)
        left, upper = column * width + _GAP, top + row * height + _GAP
        sheet.paste(tile, (left + (side - zoomed) // 2, upper + (side - zoomed) // 2))
        if captions:
            _write_line(draw, captions[number], left=left, top=upper + side, width=side)
    for column, heading in enumerate(headings):
        _write_line(draw, heading, left=column * width + _GAP, top=0, width=side)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        sheet.save(file, format="PNG")


def column_headings(classes: Sequence[int], names: Sequence[str] | None) -> list[str]:
    """What stands above columns of classes: their names, or numbers where those are not known."""
    return [str(label) if names is None else names[label] for label in classes]


@cache
def _font() -> tuple[ImageFont.FreeTypeFont, frozenset[str]]:
    """A font, and the signs that it has; that of matplotlib has more of them than Pillow's own."""
    # Imported here: most commands draw nothing.
    import matplotlib as mpl
    from matplotlib.ft2font import FT2Font

    path = Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    return ImageFont.truetype(path, _FONT_SIZE), frozenset(map(chr, FT2Font(str(path)).get_charmap()))


def _write_line(draw: ImageDraw.ImageDraw, text: str, *, left: int, top: int, width: int) -> None:
    """Writes as much of a text as fits, in the middle.

    Args:
        draw: on the sheet.
        text: a class name, say.
        left: of the place, in pixels.
        top: of the place, in pixels.
        width: of the place, in pixels.
    """
    font, drawn = _font()
    # No sign is narrower than a pixel.
    whole = visible(text[:width])
    text = whole = "".join(sign if sign in drawn else ascii(sign)[1:-1] for sign in whole)
    while text and font.getlength(text) > width:
        whole = whole[:-1]
        text = f"{whole}…"
    draw.text((left + (width - font.getlength(text)) / 2, top + 1), text, fill="black", font=font)
