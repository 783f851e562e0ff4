"""What is told about a shard set that was written."""

import pytest

from framework.data.shards.manifest import Manifest, Skipped
from framework.data.shards.summary import print_summary


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
