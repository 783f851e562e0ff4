"""What decoders complain about is heard: by whom, once, and nothing else is."""

import io
import os
import threading
import warnings

import numpy as np
import pytest
from PIL import Image

from framework.data.images import complaints
from framework.data.images.complaints import (
    Listener,
    every_warning,
    jpeg_complaint,
    listen_to_libtiff,
    png_complaint,
)
from framework.data.images.decoding import read_image
from framework.data.images.notes import WARNING
from framework.data.images.options import UnreadableImage


def png() -> bytes:
    stream = io.BytesIO()
    Image.radial_gradient("L").save(stream, "png")
    return stream.getvalue()


def strange_exif() -> bytes:
    """A JPEG whose EXIF block ends in the middle of its directory; Pillow warns of it and goes on."""
    stream = io.BytesIO()
    Image.radial_gradient("L").save(stream, "jpeg", exif=b"Exif\0\0II*\0\x08\0\0\0\x02\0\x12\x01\x03\0\x01")
    return stream.getvalue()


def test_sound_png():
    assert png_complaint(png()) == ""
    assert png_complaint(png() + b"more behind the end") == ""


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda data: data[:-12], "it has no end"),
        (lambda data: data[:-20], "truncated in chunk 'IDAT'"),
        (lambda data: data[:-40] + bytes(40), "the checksum of chunk 'IDAT' is wrong"),
        (lambda data: data[:20] + b"\x01" + data[21:], "the checksum of chunk 'IHDR' is wrong"),
        (lambda data: data[:9], "it has no end"),
    ],
)
def test_damaged_png(damage, complaint: str):
    assert complaint in png_complaint(damage(png()))


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "jpeg", **options)
    return stream.getvalue()


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"restart_marker_rows": 1}, {"subsampling": 0}])
@pytest.mark.parametrize("shape", [(256, 256), (256, 256, 3)])
def test_zeros_in_the_pixels_of_a_jpeg_are_found_wherever_they_are(shape: tuple[int, ...], options: dict):
    data = jpeg(np.random.default_rng(0).integers(0, 256, shape, np.uint8), quality=90, **options)
    assert jpeg_complaint(data) == ""
    for place in range(1000, len(data) - 400, len(data) // 7):
        zeroed = data[:place] + bytes(160) + data[place + 160 :]
        assert f"zeros from byte {place:,} on" in jpeg_complaint(zeroed)
        with pytest.raises(UnreadableImage, match="damaged"):
            read_image(zeroed)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{"optimize": True}, {"progressive": True}, {"quality": 1}, {"subsampling": 0}])
def test_zeros_of_flat_areas_and_of_metadata_are_right(mode: str, options: dict):
    image = Image.new(mode, (1600, 1200))
    image.paste(Image.radial_gradient("L").resize((48, 48)).convert(mode), (64, 64))
    stream = io.BytesIO()
    image.save(stream, "jpeg", comment=bytes(300), **({} if mode == "L" and "subsampling" in options else options))
    assert bytes(64) in stream.getvalue()
    assert jpeg_complaint(stream.getvalue() + bytes(4096)) == ""


@pytest.mark.parametrize("cut", range(2, 600, 23))
def test_half_a_header_has_no_pixels(cut: int):
    data = jpeg(np.zeros((8, 8, 3), np.uint8))[:cut] + bytes(100)
    assert jpeg_complaint(data) == ""


def test_warnings_of_an_image_are_notes_of_it_and_not_shown(capsys):
    with every_warning():
        for _ in range(2):
            notes = read_image(strange_exif()).facts.notes
            assert len(notes) == 1
            assert notes[0].what.startswith(f"{WARNING}: Corrupt EXIF data")
    assert capsys.readouterr().err == ""


def test_warnings_of_others_are_not_ours():
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with Listener() as listener:
            warnings.warn("somebody else's", stacklevel=1)
        assert listener.texts == []
    assert [str(each.message) for each in shown] == ["somebody else's"]


def test_each_thread_hears_its_own_images():
    heard: dict[int, int] = {}

    def read(number: int) -> None:
        data = strange_exif() if number % 2 else png()
        heard[number] = sum(len(read_image(data).facts.notes) for _ in range(5))

    shown_by = warnings.showwarning
    with every_warning():
        threads = [threading.Thread(target=read, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert warnings.showwarning is not complaints._show
    assert heard == {number: 5 * (number % 2) for number in range(6)}
    assert warnings.showwarning is shown_by


def test_lines_of_libtiff_are_kept_and_others_pass(capfd):
    complaint, other, unfinished = "Fax4Decode: Bad code word.", "saver: All is saved.\n", "50 % |="
    with listen_to_libtiff() as lines:
        for text in (f"{complaint}\n", other, f"{complaint}\n", unfinished):
            os.write(2, text.encode())
        assert lines == []
    assert lines == [complaint]
    assert capfd.readouterr().err == other + unfinished


def test_without_a_terminal(monkeypatch: pytest.MonkeyPatch):
    def closed(_: int) -> int:
        raise OSError("Bad file descriptor")

    monkeypatch.setattr(os, "dup", closed)
    with listen_to_libtiff() as lines:
        pass
    assert lines == []


def test_pillows_log_does_not_reach_the_terminal(capfd):
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "tiff")
    data = stream.getvalue()
    # Tag 277, samples per pixel: more than any format has.
    place = data.index(b"\x15\x01\x03\0\x01\0\0\0") + 8
    with pytest.raises(UnreadableImage, match="samples per pixel"):
        read_image(data[:place] + b"\xff\xff" + data[place + 2 :])
    assert capfd.readouterr().err == ""
