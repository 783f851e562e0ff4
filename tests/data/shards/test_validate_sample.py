"""What a sample's bytes are, and why they can't be used."""

import json

import pytest

from framework.data.shards.validate_sample import Facts, UnreadableSample, validate_sample
from framework.testing.tars import image_bytes


@pytest.mark.parametrize("header_only", [False, True])
@pytest.mark.parametrize(("format", "suffix"), [("PNG", "png"), ("JPEG", "jpg"), ("PPM", "ppm")])
def test_facts_of_an_image(format: str, suffix: str, header_only: bool):
    facts = validate_sample(image_bytes(3, size=5, format=format), kind="images", header_only=header_only)
    assert facts == Facts(size="5x5", mode="RGB", suffix=suffix)


def test_facts_of_an_episode():
    assert validate_sample(json.dumps({"a": "é"}).encode(), kind="episodes") == Facts()


@pytest.mark.parametrize(
    ("data", "kind", "reason"),
    [
        (b"", "images", "an empty file"),
        (b"text", "images", "not an image of a known format"),
        (image_bytes(3)[:-30], "images", "truncated|broken|Truncated"),
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
