"""The comparison with Pillow's own reading says what is equal, what is refused, and what damage is found."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools import image_suites


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def sixteen_bits() -> Image.Image:
    return Image.fromarray((np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (encode(Image.radial_gradient("L"), "PNG"), "equal"),
        (encode(sixteen_bits(), "PNG", transparency=3000), "equal"),
        (encode(sixteen_bits(), "TIFF"), "equal"),
        (encode(Image.radial_gradient("L").convert("LA"), "PNG"), "equal"),
        (encode(Image.new("F", (2, 2)), "TIFF"), "refused, opened by Pillow"),
        (encode(Image.radial_gradient("L"), "PNG")[:300], "refused by both"),
    ],
)
def test_outcomes(data: bytes, what: str):
    assert image_suites.outcome(data)[0] == what


def test_a_difference_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.png").write_bytes(encode(Image.new("L", (2, 2), 100), "PNG"))
    (tmp_path / "notes.txt").write_text("")
    monkeypatch.setattr(image_suites, "by_pillow", lambda data: np.full((2, 2, 1), 90.0))
    image_suites.compare([str(tmp_path)])
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}: 1 files; 1 different",
        "different: a.png: 10 of 255 apart",
    ]


def test_damage_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    (tmp_path / "a.jpg").write_bytes(encode(Image.fromarray(noise), "JPEG"))
    image_suites.damage([str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path}: 1 JPEGs, 0 refused as they are"
    assert lines[1:3] == [
        "  cut in half, with an end: 1 of 1 refused, 1 read with --damaged keep",
        "  second half zeroed, with an end: 1 of 1 refused, 1 read with --damaged keep",
    ]
