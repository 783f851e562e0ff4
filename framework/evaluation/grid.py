"""Grids of images as PNG files."""

from pathlib import Path

import torch
from einops import rearrange
from PIL import Image

from framework.core.io import atomic_write
from framework.core.shapes import Images
from framework.evaluation.samples import quantize_images

_SMALLEST_SIDE = 64
_GAP = 2


def save_grid(path: Path, images: Images, *, columns: int) -> None:
    """Write images in [-1, 1] row by row, small ones enlarged by a whole factor without smoothing.

    Args:
        path: of the PNG file.
        images: in [-1, 1].
        columns: images side by side.
    """
    size = images.shape[-1]
    zoom = -(-_SMALLEST_SIDE // size)
    pixels = quantize_images(images).repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    pixels = torch.nn.functional.pad(pixels, (_GAP, _GAP, _GAP, _GAP), value=255)
    missing = -len(pixels) % columns
    pixels = torch.cat([pixels, pixels.new_full((missing, *pixels.shape[1:]), 255)])
    grid = rearrange(pixels, "(row column) c h w -> (row h) (column w) c", column=columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        Image.fromarray(grid.squeeze(-1).cpu().numpy()).save(file, format="PNG")
