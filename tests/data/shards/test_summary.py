"""What is told about a shard set that was written."""

from dataclasses import replace

import pytest

from framework.data.images.notes import ImageNote
from framework.data.shards.manifest import Manifest, Skipped
from framework.data.shards.summary import print_notes, print_summary


def manifest_of(kind: str, num_skipped: int) -> Manifest:
    return Manifest(
        classes=("cat", "dog") if kind == "images" else (),
        class_counts=(3, 4) if kind == "images" else (),
        num_samples=7,
        num_bytes=700,
        image_sizes={},
        image_modes={},
        shards=(),
        index_sha256="",
        skipped=tuple(Skipped(source=f"cat/{number}.png", reason="it is empty") for number in range(num_skipped)),
        kind="images" if kind == "images" else "episodes",
    )


def test_every_skipped_file_is_named_with_its_reason(capsys: pytest.CaptureFixture[str]):
    print_summary(manifest_of("images", 2), "out")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "skipped cat/0.png: it is empty",
        "skipped cat/1.png: it is empty",
        "7 images of 2 classes in 0 shards in out; 2 skipped",
    ]


def test_of_many_skipped_ones_the_rest_is_counted(capsys: pytest.CaptureFixture[str]):
    print_summary(manifest_of("episodes", 23), "out")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 22
    assert lines[20:] == ["and 3 more, all in out/manifest.json", "7 episodes in 0 shards in out; 23 skipped"]


def test_damaged_images_are_not_lost_without_a_way_out(capsys: pytest.CaptureFixture[str]):
    skipped = (Skipped(source="cat/1.jpg", reason="damaged: bad code"), Skipped(source="cat/2.jpg", reason="empty"))
    print_summary(replace(manifest_of("images", 0), skipped=skipped), "out")
    lines = capsys.readouterr().err.splitlines()
    assert "1 are damaged: --damaged keep takes those that can be decoded all the same" in lines


def test_notes_say_how_many_and_name_one(capsys: pytest.CaptureFixture[str]):
    notes = [ImageNote(what="turned", count=1200, first="a[b].jpg"), ImageNote(what="plain", count=1, first="c.png")]
    print_notes(notes)
    notes = [ImageNote(what=f"note {number}", count=1, first="x") for number in range(23)]
    print_notes(notes)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == ["turned: 1,200 images, such as a[b].jpg", "plain: 1 image, c.png", "note 0: 1 image, x"]
    assert lines[-1] == "and 3 more such notes"


def test_classes_that_look_alike_are_named(capsys: pytest.CaptureFixture[str]):
    names = ("Cat", "caf\u00e9", "cafe\u0301", "cat", "cat ", "dog")
    print_summary(replace(manifest_of("images", 0), classes=names), "out")
    lines = [line for line in capsys.readouterr().err.splitlines() if "alike" in line]
    assert lines == [
        "classes that look alike: 'Cat', 'cat', 'cat '; if they are one, give them one name",
        r"classes that look alike: 'caf\xe9', 'cafe\u0301'; if they are one, give them one name",
    ]
