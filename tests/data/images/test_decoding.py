"""JPEGs that are decoded without Pillow have Pillow's pixels, and what a decoder complains about is refused."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image, ImageFile

from framework.data.images.decoding import decode_pixels, read_header, read_image
from framework.data.images.notes import DAMAGED
from framework.data.images.options import ReadOptions, UnreadableImage

END = b"\xff\xd9"
KEEP = ReadOptions(damaged="keep")
JPEGS = [{}, {"progressive": True}, {"subsampling": "4:4:4"}, {"subsampling": "4:2:2"}, {"exif": b"Exif\0\0II*\0"}]


def jpeg(mode: str, *, width: int = 67, height: int = 41, **options) -> bytes:
    rng = np.random.default_rng(0)
    rough = Image.fromarray(rng.integers(0, 256, (9, 13, 3)).astype(np.uint8))
    stream = io.BytesIO()
    rough.resize((width, height), Image.Resampling.BICUBIC).convert(mode).save(stream, "jpeg", **options)
    return stream.getvalue()


def encode(image: Image.Image, format: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", JPEGS)
def test_pixels_are_those_of_pillow(mode: str, channels: int, options: dict):
    data = jpeg(mode, **options)
    image = Image.open(io.BytesIO(data))
    expected = np.asarray(image.convert("RGB").convert("L" if channels == 1 else "RGB")).reshape(41, 67, channels)
    assert np.array_equal(decode_pixels(data, channels=channels), expected)
    place = np.zeros((41, 67, channels), dtype=np.uint8)
    assert np.array_equal(decode_pixels(data, channels=channels, out=place), expected)
    facts = read_image(data).facts
    assert (facts.format, facts.mode, facts.width, facts.height) == ("JPEG", mode, 67, 41)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_cut_jpeg_is_refused(mode: str, channels: int):
    data = jpeg(mode)
    for end in range(3, len(data) - 2, 97):
        with pytest.raises(UnreadableImage):
            decode_pixels(data[:end], channels=channels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("mode", "options"),
    # The interface to libjpeg-turbo takes no CMYK with fewer samples of a colour; Pillow alone decodes that.
    [(mode, each) for mode in ("RGB", "L", "CMYK") for each in JPEGS if (mode, *each.values()) != ("CMYK", "4:2:2")],
)
def test_what_pillow_fills_with_gray_is_refused_or_kept(mode: str, options: dict, channels: int):
    data = jpeg(mode, width=267, height=241, **options)
    half = len(data) // 2
    for damaged in (data[:half] + END, data[:half] + bytes(len(data) - half - 2) + END):
        Image.open(io.BytesIO(damaged)).load()
        for read in (read_image, lambda data: decode_pixels(data, channels=channels)):
            with pytest.raises(UnreadableImage, match=r"^damaged: (Corrupt JPEG data|Premature end)"):
                read(damaged)
        picture = read_image(damaged, options=KEEP)
        assert [note.what for note in picture.facts.notes] == [DAMAGED]
        assert "JPEG" in picture.facts.notes[0].detail
        kept = decode_pixels(damaged, channels=channels, options=KEEP)
        if channels == picture.pixels.shape[2]:
            assert np.array_equal(kept, picture.pixels)
    assert read_image(data, options=KEEP).facts.notes == ()


def test_zeros_in_the_middle_are_refused():
    data = jpeg("RGB", width=400, height=300, quality=90)
    middle = len(data) // 2
    with pytest.raises(UnreadableImage, match="damaged: Corrupt JPEG data"):
        read_image(data[:middle] + bytes(512) + data[middle + 512 :])


def test_png_with_a_wrong_checksum_is_refused_or_kept():
    data = encode(Image.radial_gradient("L"), "png")
    damaged = data[:-16] + bytes(4) + data[-12:]  # The end is a chunk of 12 bytes, the checksum before it has 4.
    Image.open(io.BytesIO(damaged)).load()
    for read in (read_image, lambda data: decode_pixels(data, channels=3)):
        with pytest.raises(UnreadableImage, match=r"^damaged: the checksum of chunk 'IDAT' is wrong"):
            read(damaged)
    (note,) = read_image(damaged, options=KEEP).facts.notes
    assert (note.what, note.detail) == (DAMAGED, "the checksum of chunk 'IDAT' is wrong")


def test_fax_with_a_code_that_does_not_exist_is_refused_or_kept(capfd):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 2, (64, 200)).astype(bool))
    data = bytearray(encode(image, "tiff", compression="group4"))
    data[20:50] = bytes(30)
    with pytest.raises(UnreadableImage, match="Fax4Decode"):
        read_image(bytes(data))
    (note,) = read_image(bytes(data), options=KEEP).facts.notes
    assert note.what == DAMAGED
    assert "Fax4Decode" in note.detail
    assert capfd.readouterr().err == ""


def test_reasons_of_libtiff_are_told(capfd):
    rng = np.random.default_rng(0)
    data = encode(Image.fromarray(rng.integers(0, 256, (64, 64)).astype(np.uint8)), "tiff", compression="tiff_lzw")
    with pytest.raises(UnreadableImage, match="decoder error -2; LZWDecode: "):
        read_image(data[:1000] + bytes(1000) + data[2000:])
    assert capfd.readouterr().err == ""


def test_sampling_factors_without_a_name_are_left_to_pillow():
    data = bytearray(jpeg("RGB", subsampling="4:4:4", width=8, height=8))
    frame = data.index(b"\xff\xc0")
    data[frame + 14] = data[frame + 17] = 0x21
    image = Image.open(io.BytesIO(bytes(data)))
    assert np.array_equal(decode_pixels(bytes(data), channels=3), np.asarray(image))
    # 4:4:1 has a name that simplejpeg does not know; there are not as many samples here.
    data[frame + 11], data[frame + 14], data[frame + 17] = 0x14, 0x11, 0x11
    with pytest.raises(UnreadableImage, match="damaged: Corrupt JPEG data"):
        decode_pixels(bytes(data), channels=3)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "TIFF", "PNG"])
def test_the_first_picture_counts(format: str):
    pictures = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(pictures[0], format, save_all=True, append_images=pictures[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert (read_image(data).pixels == [255, 0, 0]).all()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "GIF"])
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_pixels": 99}, "20x5 pixels, more than max_pixels 99"),
        ({"min_side": 6}, "20x5 pixels, a side below min_side 6"),
        ({"max_aspect": 3.9}, "20x5 pixels, longer than max_aspect 3.9"),
    ],
)
def test_sizes_are_refused_before_a_pixel_is_decoded(format: str, options: dict, reason: str, monkeypatch):
    data = encode(Image.new("RGB", (20, 5)), format)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("the pixels were decoded"))
    for read in (read_image, read_header, lambda data, options: decode_pixels(data, channels=3, options=options)):
        with pytest.raises(UnreadableImage, match=reason):
            read(data, options=ReadOptions(**options))


def test_images_beyond_pillows_bound_can_be_asked_for(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    data = encode(Image.new("RGB", (10, 10)), "png")
    assert read_image(data, options=ReadOptions(max_pixels=100)).pixels.shape == (10, 10, 3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "an empty file"),
        (b"text", "not an image of a known format"),
        (b"\xff\xd8\xff", "a JPEG that cannot be read: "),
        (encode(Image.new("1", (3, 3)), "png")[:20] + b"x" * 30, "a PNG that cannot be read: the checksum of chunk"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", r"a drawing \(EPS\), not pixels"),
    ],
)
def test_reasons(data: bytes, reason: str):
    for read in (read_image, read_header):
        with pytest.raises(UnreadableImage, match=reason):
            read(data)


def test_whatever_a_decoder_raises_is_a_reason(monkeypatch):
    def fail(*_: object) -> None:
        raise MemoryError

    data = encode(Image.new("RGB", (4, 4)), "png")
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(UnreadableImage, match="MemoryError"):
        decode_pixels(data, channels=3)


def test_training_and_conversion_read_the_same_pixels():
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (12, 9, 4)).astype(np.uint8))
    for mode, format in (
        ("RGBA", "PNG"),
        ("P", "GIF"),
        ("L", "JPEG"),
        ("RGB", "JPEG"),
        ("CMYK", "JPEG"),
        ("1", "TIFF"),
    ):
        data = encode(image.convert(mode), format)
        pixels = read_image(data).pixels
        assert np.array_equal(decode_pixels(data, channels=pixels.shape[2]), pixels)


def test_pillow_warns_of_nothing_that_was_read_once():
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        read_image(jpeg("RGB", exif=b"Exif\0\0II*\0\x08\0\0\0\x02\0\x12\x01\x03\0\x01"))
    assert shown == []
