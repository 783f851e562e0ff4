"""Small deterministic images and shard sets for the tests of every package."""

from pathlib import Path

import numpy as np
from PIL import Image

from framework.data.convert.class_folders import write_image_shards
from framework.data.shards.manifest import Manifest


def make_image_folder(
    path: Path,
    *,
    classes: tuple[str, ...] = ("cat", "dog"),
    per_class: int = 4,
    size: int | tuple[int, int] = 16,
    mode: str = "RGB",
    suffix: str = ".png",
) -> Path:
    """Writes `path/CLASS/NNNN{suffix}`: a gradient with a tint of its class and noise of its own.

    Args:
        path: folder of the class folders.
        classes: their names.
        per_class: images in each.
        size: side in pixels, or (width, height).
        mode: Pillow mode of the images.
        suffix: decides the format.
    """
    width, height = (size, size) if isinstance(size, int) else size
    ramp = np.linspace(0, 160, height * width).reshape(height, width, 1)
    for label, name in enumerate(classes):
        (path / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            rng = np.random.default_rng((label, number))
            tint = np.random.default_rng(label).integers(0, 64, 3)
            pixels = (ramp + tint + rng.integers(0, 32, (height, width, 3))).astype(np.uint8)
            Image.fromarray(pixels).convert(mode).save(path / name / f"{number:04d}{suffix}")
    return path


def make_image_shards(
    path: Path,
    *,
    classes: tuple[str, ...] = ("cat", "dog"),
    per_class: int = 4,
    size: int | tuple[int, int] = 16,
    mode: str = "RGB",
    samples_per_shard: int = 4,
) -> Manifest:
    """Writes the same images to `path/images`, and as a shard set to `path/shards`.

    Args:
        path: folder of both.
        classes: as for `make_image_folder`.
        per_class: as for `make_image_folder`.
        size: as for `make_image_folder`.
        mode: as for `make_image_folder`.
        samples_per_shard: images of a shard; the last has fewer.
    """
    images = make_image_folder(path / "images", classes=classes, per_class=per_class, size=size, mode=mode)
    return write_image_shards(images, path / "shards", samples_per_shard=samples_per_shard, workers=1)
