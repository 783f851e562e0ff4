"""JPEGs that are decoded without Pillow have Pillow's pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from framework.data.images.decoding import UnreadableImage, decode_pixels


def jpeg(mode: str, **options) -> bytes:
    rng = np.random.default_rng(0)
    rough = Image.fromarray(rng.integers(0, 256, (9, 13, 3)).astype(np.uint8))
    stream = io.BytesIO()
    rough.resize((67, 41), Image.Resampling.BICUBIC).convert(mode).save(stream, "jpeg", **options)
    return stream.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:4:4"}, {"subsampling": "4:2:2"}])
def test_pixels_are_those_of_pillow(mode: str, channels: int, options: dict):
    data = jpeg(mode, **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("L" if channels == 1 else "RGB"))
    assert np.array_equal(decode_pixels(data, channels=channels), expected.reshape(41, 67, channels))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_cut_jpeg_is_refused(mode: str, channels: int):
    data = jpeg(mode)
    for end in range(3, len(data) - 2, 97):
        with pytest.raises(UnreadableImage):
            decode_pixels(data[:end], channels=channels)
