"""What a sample's bytes are, and why they can't be used."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from framework.data.images.notes import CONSTANT, NOT_TURNED, TRANSPARENT, TURNED
from framework.data.images.options import ReadOptions
from framework.data.shards.validate_sample import (
    Facts,
    TrainingPixels,
    UnreadableSample,
    is_nearly_constant,
    validate_sample,
)
from framework.testing.tars import image_bytes


@pytest.mark.parametrize("header_only", [False, True])
@pytest.mark.parametrize(("format", "suffix"), [("PNG", "png"), ("JPEG", "jpg"), ("PPM", "ppm")])
def test_facts_of_an_image(format: str, suffix: str, header_only: bool):
    facts = validate_sample(image_bytes(3, size=5, format=format), kind="images", header_only=header_only)
    assert facts == Facts(size="5x5", mode="RGB", suffix=suffix, notes=() if header_only else (CONSTANT,))


def test_facts_of_an_episode():
    assert validate_sample(json.dumps({"a": "é"}).encode(), kind="episodes") == Facts()


@pytest.mark.parametrize(
    ("data", "kind", "reason"),
    [
        (b"", "images", "an empty file"),
        (b"text", "images", "not an image of a known format"),
        (image_bytes(3)[:-30], "images", "damaged: truncated in chunk"),
        (b"{", "episodes", "not JSON"),
        (b"\xff", "episodes", "not UTF-8"),
        (b"[1]", "episodes", r"JSON, but not an object \(list\)"),
        (b"[" * 100_000, "episodes", "not JSON"),
    ],
)
def test_what_cannot_be_used(data: bytes, kind, reason: str):
    with pytest.raises(UnreadableSample, match=reason):
        validate_sample(data, kind=kind)


def test_the_header_alone_does_not_show_what_is_missing_after_it():
    assert validate_sample(image_bytes(3)[:-30], kind="images", header_only=True).size == "8x8"


@pytest.mark.parametrize("header_only", [False, True])
def test_sizes_are_those_that_training_sees(header_only: bool):
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.radial_gradient("L").resize((9, 5)).save(stream, "jpeg", exif=exif)
    data = stream.getvalue()
    facts = validate_sample(data, kind="images", header_only=header_only)
    assert (facts.size, facts.notes) == ("5x9", (TURNED,))
    options = ReadOptions(orientation="ignore")
    facts = validate_sample(data, kind="images", header_only=header_only, options=options)
    assert (facts.size, facts.notes) == ("9x5", (NOT_TURNED,))


@pytest.mark.parametrize(
    ("spread", "constant"), [(0, True), (1, True), (4, False)], ids=["one colour", "noise of a bit", "noise"]
)
def test_nearly_one_colour(spread: int, constant: bool):
    noise = np.random.default_rng(0).integers(0, spread + 1, (300, 500, 3))
    assert is_nearly_constant((100 + noise).astype(np.uint8)) is constant


def test_a_picture_on_a_plain_ground_is_not_constant():
    pixels = np.full((400, 400, 1), 255, dtype=np.uint8)
    pixels[190:210, 190:210] = 0
    assert not is_nearly_constant(pixels)


def test_a_fully_transparent_image_has_both_notes():
    stream = io.BytesIO()
    Image.new("LA", (4, 4)).save(stream, "png")
    assert validate_sample(stream.getvalue(), kind="images").notes == (TRANSPARENT, CONSTANT)


@pytest.mark.parametrize("size", [None, 1, 3, 40])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_what_training_does_is_tried(mode: str, channels, size: int | None):
    stream = io.BytesIO()
    Image.radial_gradient("L").resize((9, 5)).convert(mode).save(stream, "png")
    training = TrainingPixels(channels=channels, size=size)
    assert validate_sample(stream.getvalue(), kind="images", training=training).size == "9x5"
