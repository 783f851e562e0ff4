"""Shard sets to measure on: JPEGs with the statistics of photographs, and an index of any length."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from framework.core.io import atomic_write, sha256_of
from framework.data.convert.class_folders import write_image_shards
from framework.data.shards.manifest import INDEX, read_manifest


def make_jpeg_shards(folder: Path, *, size: int, num_images: int, num_shards: int = 8) -> Path:
    """Writes `num_images` JPEGs of `size` pixels, of two classes, to `folder/shards`; the same ones every time.

    Noise with a spectrum that falls as that of photographs (amplitude 1 / frequency), quality 90.

    Args:
        folder: gets `images` and `shards`.
        size: side of the images in pixels.
        num_images: of both classes together.
        num_shards: files of the set.
    """
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])[..., None] + 1 / size
    for number in range(num_images):
        noise = np.fft.fft2(rng.standard_normal((size, size, 3)), axes=(0, 1)) / frequency
        values = np.fft.ifft2(noise, axes=(0, 1)).real
        pixels = (128 + 50 * (values - values.mean()) / values.std()).clip(0, 255).astype(np.uint8)
        path = folder / "images" / f"class{number % 2}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=90)
    write_image_shards(folder / "images", folder / "shards", samples_per_shard=num_images // num_shards)
    return folder / "shards"


def repeat_shards(source: Path, dest: Path, *, num_samples: int) -> Path:
    """Writes a shard set of at least `num_samples` samples that links to the shards of another one again and again.

    Args:
        source: the other set.
        dest: folder that is made, on the same file system.
        num_samples: the least number.
    """
    manifest, index = read_manifest(source), np.load(source / INDEX)
    times = -(-num_samples // len(index))
    dest.mkdir(parents=True)
    shards = []
    for number in range(times * len(manifest.shards)):
        record = manifest.shards[number % len(manifest.shards)]
        shards.append(replace(record, name=f"shard-{number:06d}.tar"))
        os.link(source / record.name, dest / shards[-1].name)
    rows = np.tile(index, (times, 1))
    rows[:, 0] += np.repeat(np.arange(times) * len(manifest.shards), len(index))
    with atomic_write(dest / INDEX) as stream:
        np.save(stream, rows, allow_pickle=False)
    replace(
        manifest,
        class_counts=tuple(count * times for count in manifest.class_counts),
        num_samples=len(rows),
        num_bytes=manifest.num_bytes * times,
        image_sizes={size: count * times for size, count in manifest.image_sizes.items()},
        image_modes={mode: count * times for mode, count in manifest.image_modes.items()},
        shards=tuple(shards),
        index_sha256=sha256_of(dest / INDEX),
        sources_sha256=None,
    ).write(dest)
    return dest
