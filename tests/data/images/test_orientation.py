"""EXIF orientation: as Pillow's exif_transpose, for every format that can carry it, or not at all."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from framework.data.images.decoding import decode_pixels, read_header, read_image
from framework.data.images.notes import NOT_TURNED, TURNED
from framework.data.images.options import ReadOptions
from framework.data.images.orientation import orientation_of, turn, turn_back, upright_size

FORMATS = [
    ("JPEG", {}),
    ("PNG", {}),
    ("WEBP", {"lossless": True}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("MPO", {}),
]
IGNORE = ReadOptions(orientation="ignore")


def oriented(orientation: int, format: str, options: dict, *, mode: str = "RGB") -> bytes:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (7, 13, 3)).astype(np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stream = io.BytesIO()
    image.save(stream, format, exif=exif, **options)
    return stream.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("format", "options"), FORMATS)
def test_it_is_applied_in_every_format(format: str, options: dict, orientation: int):
    data = oriented(orientation, format, options)
    picture = read_image(data)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(picture.pixels, expected)
    assert picture.facts.notes == (() if orientation == 1 else (TURNED,))
    assert np.array_equal(decode_pixels(data, channels=3), expected)
    header = read_header(data)
    assert (header.width, header.height, header.notes) == (expected.shape[1], expected.shape[0], picture.facts.notes)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("format", "options"), FORMATS)
def test_it_can_be_ignored_in_every_format(format: str, options: dict, orientation: int):
    stored = read_image(oriented(1, format, options)).pixels
    data = oriented(orientation, format, options)
    picture = read_image(data, options=IGNORE)
    assert np.array_equal(picture.pixels, stored)
    assert picture.facts.notes == (() if orientation == 1 else (NOT_TURNED,))
    header = read_header(data, options=IGNORE)
    assert (header.width, header.height) == (13, 7)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_other_colours_are_turned_too(mode: str, channels: int):
    data = oriented(6, "JPEG", {}, mode=mode)
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    expected = np.asarray(image.convert("L") if channels == 1 else image).reshape(13, 7, channels)
    assert np.array_equal(decode_pixels(data, channels=channels), expected)


def test_xmp_counts_where_exif_is_silent():
    stream = io.BytesIO()
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    Image.new("RGB", (7, 5)).save(stream, "JPEG", xmp=xmp)
    assert read_image(stream.getvalue()).pixels.shape == (7, 5, 3)


def test_metadata_behind_a_profile_that_looks_like_pixels():
    stream = io.BytesIO()
    Image.new("RGB", (7, 5)).save(stream, "JPEG", icc_profile=b"\xff\xda" * 50)
    profile = stream.getvalue()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    segment = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    segment = b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment
    place = profile.index(b"\xff\xdb")
    assert read_image(profile[:place] + segment + profile[place:]).pixels.shape == (7, 5, 3)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_a_value_that_means_nothing_turns_nothing(value: int):
    data = oriented(value, "JPEG", {})
    assert orientation_of(Image.open(io.BytesIO(data))) == 1
    assert read_image(data).facts.notes == ()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_back_is_the_inverse(orientation: int):
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    turned = turn(pixels, orientation)
    assert turned.shape[1::-1] == upright_size(3, 2, orientation)
    assert np.array_equal(turn_back(turned, orientation), pixels)


def test_a_camera_that_lay_on_its_left_side():
    # Orientation 6: the first row is the right-hand side as it is shown, from top to bottom (EXIF 2.32).
    pixels = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.uint8)[..., None]
    assert turn(pixels, 6)[..., 0].tolist() == [[4, 1], [5, 2], [6, 3]]
