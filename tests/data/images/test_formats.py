"""Names of image files: those of every format that Pillow has a decoder for."""

import pytest
from PIL import Image

from framework.data.images.formats import image_suffixes, is_image_name, member_suffix, suffix_of, usual_suffix


@pytest.mark.parametrize("name", ["a.JPG", "a.jfif", "a.avif", "a.jp2", "a.mpo", "x/y.tga", "a.b.png"])
def test_images(name: str):
    assert is_image_name(name)


@pytest.mark.parametrize("name", ["a.txt", "png", ".png", "a.eps", "a.pdf", "a.wmf", "a.h5", "a.mpg", "a.png/b", "a."])
def test_others(name: str):
    """A format that Pillow only writes, only knows by its header, or hands to another program is none that it reads."""
    assert not is_image_name(name)


def test_what_pillow_writes_it_reads_again():
    """But for EPS and PDF, every format that Pillow both knows by a suffix and saves from RGB, L or P."""
    Image.init()
    refused = set()
    for suffix, name in Image.registered_extensions().items():
        if name not in Image.SAVE or suffix.removeprefix(".") in image_suffixes():
            continue
        refused.add(name)
    # The stubs save nothing without a handler.
    assert refused == {"BUFR", "EPS", "GRIB", "HDF5", "PALM", "PDF", "WMF"}


def test_suffixes_of_members():
    assert suffix_of("a/b.PNG") == "png"
    for path, actual, expected in [
        ("a.JPEG", "png", "jpg"),
        ("a.jfif", "jpg", "jpg"),
        ("a.tif", "tiff", "tiff"),
        ("a.avif", "avif", "avif"),
        ("a", "jpg", "jpg"),
        ("a.dat", "jp2", "jp2"),
    ]:
        assert member_suffix(path, actual=actual) == expected
    assert [usual_suffix(name) for name in ("JPEG", "JPEG2000", "PNG", "TIFF", "AVIF")] == [
        "jpg",
        "jp2",
        "png",
        "tiff",
        "avif",
    ]
