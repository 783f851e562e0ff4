"""Every pixel format to 8 bits: the range comes from the file, or the image is refused with the reason."""

import io
import struct
import zlib

import numpy as np
import PIL
import pytest
from PIL import Image

from framework.data.images.decoding import decode_pixels, read_image
from framework.data.images.eight_bits import to_channels
from framework.data.images.notes import TRANSPARENT
from framework.data.images.options import UnreadableImage

RAMP = np.array([[0, 1, 1000, 2048, 4095]])
since_pillow_13 = pytest.mark.skipif(
    int(PIL.__version__.split(".")[0]) < 13, reason="Pillow before 13 refuses such TIFFs: no wrong pixels"
)


def tiff(rows: bytes, *, width: int, bits: int, sample_format: int = 1, photometric: int = 1) -> bytes:
    """A TIFF of one row, uncompressed, by hand: tags of shorts and longs, then the row."""
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 0, 277: 1, 278: 1, 279: len(rows)}
    tags[339] = sample_format
    start = 8 + 2 + 12 * len(tags) + 4
    tags[273] = start
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + rows


def png(rows: list[bytes], *, width: int, bits: int, color: int = 0, key: bytes = b"") -> bytes:
    """A PNG by hand, with a colour `key` that stands for transparency."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), bits, color, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + (chunk(b"tRNS", key) if key else b"") + pixels + chunk(b"IEND", b"")


def packed(values: np.ndarray, bits: int) -> bytes:
    """Values of any number of bits, one behind the other, the row filled to a byte."""
    text = "".join(f"{value:0{bits}b}" for value in values.ravel().tolist())
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def scaled(values: np.ndarray, bits: int) -> list[int]:
    return np.round(values.ravel() * 255.0 / (2**bits - 1)).astype(int).tolist()


def test_twelve_bits():
    data = tiff(packed(RAMP, 12), width=5, bits=12)
    assert decode_pixels(data, channels=1).ravel().tolist() == scaled(RAMP, 12) == [0, 0, 62, 128, 255]


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_sixteen_bits(byte_order: str, compression: str | None):
    values = (RAMP * 16).astype(f"{byte_order}u2")
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "tiff", compression=compression)
    assert decode_pixels(stream.getvalue(), channels=1).ravel().tolist() == scaled(values.astype(int), 16)


def test_white_is_zero():
    values = (RAMP * 16).astype("<u2")
    data = tiff(values.tobytes(), width=5, bits=16, photometric=0)
    assert decode_pixels(data, channels=1).ravel().tolist() == [255 - value for value in scaled(values, 16)]


def test_thirty_two_bits_use_the_whole_range():
    values = np.array([[0, 2**24, 2**31 - 1, 2**31 + 1, 2**32 - 1]], dtype="<u4")
    data = tiff(values.tobytes(), width=5, bits=32)
    assert decode_pixels(data, channels=1).ravel().tolist() == [0, 1, 127, 128, 255]


@pytest.mark.parametrize(("bits", "type"), [(8, "<i1"), (16, "<i2"), (32, "<i4")])
def test_signed_pixels_are_refused(bits: int, type: str):
    data = tiff(np.array([[-3, 0, 100]], dtype=type).tobytes(), width=3, bits=bits, sample_format=2)
    with pytest.raises(UnreadableImage, match=f"signed pixels of {bits} bits, whose range is unknown"):
        read_image(data)


def test_float_pixels_are_refused():
    stream = io.BytesIO()
    Image.new("F", (2, 2)).save(stream, "tiff")
    with pytest.raises(UnreadableImage, match="float pixels, whose range is unknown"):
        read_image(stream.getvalue())


def test_integers_of_other_formats_are_refused():
    cards = ("SIMPLE  = T", "BITPIX  = 16", "NAXIS   = 2", "NAXIS1  = 2", "NAXIS2  = 2", "END")
    fits = "".join(card.ljust(80) for card in cards).ljust(2880).encode() + bytes(8).ljust(2880, b"\0")
    with pytest.raises(UnreadableImage, match="of FITS, whose range is unknown"):
        read_image(fits)


def test_a_layout_that_pillow_does_not_know_says_so():
    with pytest.raises(UnreadableImage, match="a TIFF that cannot be read: unknown pixel mode"):
        read_image(tiff(packed(RAMP, 14), width=5, bits=14))


@pytest.mark.parametrize("maximum", [100, 255, 1000, 65535])
def test_portable_graymaps(maximum: int):
    values = np.array([0, maximum // 3, maximum])
    rows = values.astype(">u1" if maximum < 256 else ">u2").tobytes()
    pixels = decode_pixels(b"P5 3 1 %d\n" % maximum + rows, channels=1)
    assert pixels.ravel().tolist() == np.round(values * 255 / maximum).astype(int).tolist()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png([struct.pack(">3H", 0, 1000, 65535)], width=3, bits=16, key=struct.pack(">H", 1000)), [0, 255, 255]),
        (png([struct.pack(">3H", 0, 1000, 65535)], width=3, bits=16), [0, 4, 255]),
        (png([bytes([0x05, 0x5F])], width=4, bits=4, key=struct.pack(">H", 5)), [0, 255, 255, 255]),
        (png([bytes([0x05, 0x5F])], width=4, bits=4), [0, 85, 85, 255]),
        (png([bytes([0b00011011])], width=4, bits=2, key=struct.pack(">H", 2)), [0, 85, 255, 255]),
        (png([bytes([0b01000000])], width=4, bits=1, key=struct.pack(">H", 0)), [255, 255, 255, 255]),
        (png([bytes([7, 9])], width=2, bits=8, key=struct.pack(">H", 7)), [255, 9]),
    ],
)
def test_gray_with_a_transparent_value(data: bytes, expected: list[int]):
    assert decode_pixels(data, channels=1).ravel().tolist() == expected


def test_colour_of_sixteen_bits_with_a_transparent_one():
    row = struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0xFFFF, 0, 0)
    data = png([row], width=2, bits=16, color=2, key=row[:6])
    assert decode_pixels(data, channels=3).tolist() == [[[255, 255, 255], [255, 0, 0]]]


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA"])
def test_half_transparent_pixels_are_laid_over_white(mode: str):
    image = Image.new("RGBA", (2, 1), (100, 100, 100, 0)).convert("LA" if mode == "LA" else "RGBA")
    image.putpixel((1, 0), (100, 51) if mode == "LA" else (100, 100, 100, 51))
    stream = io.BytesIO()
    image.convert(mode).save(stream, "tiff" if mode == "PA" else "png")
    # 100 * 0.2 + 255 * 0.8
    assert decode_pixels(stream.getvalue(), channels=1).ravel().tolist() == [255, 224]


def test_fully_transparent_images_are_noted():
    for mode in ("LA", "RGBA"):
        stream = io.BytesIO()
        Image.new(mode, (2, 2)).save(stream, "png")
        picture = read_image(stream.getvalue())
        assert picture.facts.notes == (TRANSPARENT,)
        assert (picture.pixels == 255).all()
    data = png([struct.pack(">2H", 7, 7)], width=2, bits=16, key=struct.pack(">H", 7))
    assert read_image(data).facts.notes == (TRANSPARENT,)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["LAB", pytest.param("YCbCr", marks=since_pillow_13), "CMYK"])
def test_other_colour_spaces(mode: str, channels: int):
    image = Image.new("RGB", (4, 4), (200, 40, 40))
    stream = io.BytesIO()
    if mode == "LAB":
        # L* 45 of 100, a* 62, b* 40.
        Image.frombytes("LAB", (4, 4), bytes([115, 62, 40]) * 16).save(stream, "tiff")
    else:
        image.convert(mode).save(stream, "tiff")
    pixels = decode_pixels(stream.getvalue(), channels=channels)
    expected = [200, 40, 40] if channels == 3 else [88]
    assert np.abs(pixels.astype(int) - expected).max() <= (12 if mode == "LAB" else 2)


@since_pillow_13
def test_premultiplied_gray():
    stream = io.BytesIO()
    image = Image.new("LA", (1, 1), (50, 128))
    image.save(stream, "tiff")
    # Tag 338, extra samples: 2 for alpha beside the gray, 1 for gray that is multiplied by it.
    data = stream.getvalue().replace(struct.pack("<HHIH", 338, 3, 1, 2), struct.pack("<HHIH", 338, 3, 1, 1))
    assert abs(int(decode_pixels(data, channels=1)[0, 0, 0]) - (50 + 127)) <= 1


def test_channels():
    rgb = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 10, 10]]], dtype=np.uint8)
    assert to_channels(rgb, 3) is rgb
    assert to_channels(rgb, 1).ravel().tolist() == [76, 150, 29, 10]
    assert to_channels(rgb[..., :1], 3).tolist() == [[[255] * 3, [0] * 3, [0] * 3, [10] * 3]]
