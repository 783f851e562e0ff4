"""Images that begin alike are decoded as each by itself."""

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from framework.data.images.alike import AlikeDecoder, header_bytes
from framework.data.images.decoding import decode_pixels
from framework.data.images.options import ReadOptions, UnreadableImage


def jpeg(seed: int, *, size: tuple[int, int] = (16, 16), mode: str = "RGB", **options: object) -> bytes:
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], bands), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if bands == 1 else pixels, mode).save(
        stream, "JPEG", **{"quality": 90, **options}
    )
    return stream.getvalue()


def turned(seed: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return jpeg(seed, exif=exif)


def png(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.open(io.BytesIO(jpeg(seed))).save(stream, "PNG")
    return stream.getvalue()


IMAGES = [
    *(jpeg(seed) for seed in range(4)),
    jpeg(4, quality=50),
    jpeg(5, quality=50),
    jpeg(6, mode="L"),
    jpeg(7, mode="L"),
    jpeg(8, mode="CMYK"),
    jpeg(9, mode="CMYK"),
    jpeg(10, size=(8, 32)),
    jpeg(11, size=(40, 24)),
    jpeg(12, progressive=True),
    jpeg(13, progressive=True),
    jpeg(14, optimize=True),
    jpeg(15, subsampling=0),
    turned(16),
    turned(17),
    png(18),
    jpeg(19),
    jpeg(20),
]


@pytest.mark.parametrize("channels", [1, 3])
def test_each_is_decoded_as_by_itself(channels: int):
    options = ReadOptions()
    decoder = AlikeDecoder(channels=channels, options=options)
    in_place = []
    for data in [*IMAGES, *IMAGES]:
        out = np.zeros((16, 16, channels), dtype=np.uint8)
        decoded = decoder.decode(data, out)
        np.testing.assert_array_equal(decoded, decode_pixels(data, channels=channels, options=options))
        in_place.append(decoded is out)
    assert any(in_place)
    assert not all(in_place)


def test_a_header_is_read_once(monkeypatch: pytest.MonkeyPatch):
    read = []
    header = simplejpeg.decode_jpeg_header
    monkeypatch.setattr(simplejpeg, "decode_jpeg_header", lambda *args: (read.append(1), header(*args))[1])
    decoder = AlikeDecoder(channels=3, options=ReadOptions())
    for seed in range(5):
        decoder.decode(jpeg(seed), np.zeros((16, 16, 3), dtype=np.uint8))
    assert len(read) == 1
    # Another place is another question.
    decoder.decode(jpeg(0), np.zeros((8, 8, 3), dtype=np.uint8))
    assert len(read) == 2


def test_headers_that_differ_are_read_anew_a_few_times_in_a_batch():
    decoder, wide = AlikeDecoder(channels=3, options=ReadOptions()), np.zeros((16, 16, 3), dtype=np.uint8)
    for again in range(2):
        decoder.look_again()
        for quality in range(80, 90):
            held = decoder._header
            decoder.decode(jpeg(0, quality=quality), wide)
            assert (decoder._header != held) == (quality < 84), (again, quality)


@pytest.mark.parametrize("cut", [700, 640])
def test_damage_behind_a_known_header_is_refused_with_the_same_words(cut: int):
    decoder, out = AlikeDecoder(channels=3, options=ReadOptions()), np.zeros((16, 16, 3), dtype=np.uint8)
    decoder.decode(jpeg(0), out)
    damaged = jpeg(1)[:cut] + b"\xff\xd9"
    with pytest.raises(UnreadableImage) as alone:
        decode_pixels(damaged, channels=3)
    with pytest.raises(UnreadableImage) as after:
        decoder.decode(damaged, out)
    assert str(after.value) == str(alone.value)


def test_the_options_hold_for_every_image():
    decoder, out = AlikeDecoder(channels=3, options=ReadOptions(max_pixels=255)), np.zeros((16, 16, 3), dtype=np.uint8)
    for seed in range(3):
        with pytest.raises(UnreadableImage, match="max_pixels"):
            decoder.decode(jpeg(seed), out)


def test_what_comes_before_the_pixels():
    data = jpeg(0)
    length = header_bytes(data)
    assert data[length - 14 : length - 12] == b"\xff\xda"
    assert header_bytes(data[: length - 1]) == 0
    assert header_bytes(b"\xff\xd8\xff") == header_bytes(b"") == 0
    # In a profile, what looks like the first scan.
    assert header_bytes(jpeg(0, icc_profile=b"..\xff\xda\0\x0c\3..")) == 0
