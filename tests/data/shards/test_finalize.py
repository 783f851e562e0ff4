"""The end of every way to make a set: the index and the manifest of known shards, by hand."""

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framework.core.errors import DataError
from framework.data.shards import finalize as finalize_module
from framework.data.shards.finalize import (
    Cancelled,
    Indexed,
    SampleProgress,
    SetFacts,
    ShardFacts,
    count_reasons,
    finalize_set,
    map_with_progress,
    name_some,
    refuse_skipped,
)
from framework.data.shards.manifest import Manifest, ShardRecord, Skipped, read_manifest
from framework.data.shards.source_paths import SourcePath

SKIPPED = tuple(Skipped(source=f"x{number}", reason="odd") for number in range(7))


def indexed(name: str | None, rows: list[tuple[int, int, int]]) -> Indexed:
    record = ShardRecord(name=name, num_samples=len(rows), num_bytes=100, sha256="0" * 64) if name else None
    count = len(rows)
    facts = ShardFacts(
        record=record,
        sizes={"8x8": count - 1, "4x4": 1} if count else {},
        modes={"L": count} if count else {},
        skipped=(),
    )
    sources = tuple(SourcePath(member=f"{name}{number}.png", path=f"x/{number}.png") for number in range(count))
    return Indexed(facts=facts, rows=np.array(rows, dtype=np.int64).reshape(-1, 3), sources=sources)


def finalize(dest: Path, shards: list[Indexed], **changes: Any) -> Manifest:
    return finalize_set(
        dest, shards, SetFacts(**{"classes": ("a", "b"), "kind": "images", "skipped": SKIPPED, **changes})
    )


def test_index_and_manifest_by_hand(tmp_path: Path):
    shards = [indexed("s0", [(512, 5, 0), (1024, 6, 1)]), indexed(None, []), indexed("s1", [(512, 7, 1), (2048, 9, 1)])]
    manifest = finalize(tmp_path, shards)
    expected = [[0, 512, 5, 0], [0, 1024, 6, 1], [1, 512, 7, 1], [1, 2048, 9, 1]]
    assert np.load(tmp_path / "index.npy").tolist() == expected
    assert (manifest.num_samples, manifest.num_bytes, manifest.class_counts) == (4, 200, (1, 3))
    assert [shard.name for shard in manifest.shards] == ["s0", "s1"]
    # Equal counts by name.
    assert list(manifest.image_sizes.items()) == [("4x4", 2), ("8x8", 2)]
    assert read_manifest(tmp_path) == manifest
    assert manifest.left_out == {"odd": 7}
    assert (tmp_path / "sources.tsv").read_text().splitlines()[2] == "s10.png\tx/0.png"


def test_sets_that_lack_something_have_no_manifest(tmp_path: Path):
    message = r"class 'b' holds no readable image: 7 files cannot be used: 7 odd \(x0, x1, x2, ...\)"
    with pytest.raises(DataError, match=message):
        finalize(tmp_path, [indexed("s0", [(512, 5, 0)])])
    ours = (*SKIPPED, Skipped(source="b/1.png", reason="truncated (12 bytes)"))
    with pytest.raises(DataError, match=r"1 files cannot be used: 1 truncated \(12 bytes\) \(b/1.png\): repair"):
        finalize(tmp_path, [indexed("s0", [(512, 5, 0)])], skipped=ours)
    with pytest.raises(DataError, match="no sample is readable"):
        finalize(tmp_path, [indexed(None, [])], empty_classes=True)
    assert not (tmp_path / "manifest.json").exists()
    assert finalize(tmp_path, [indexed("s0", [(512, 5, 0)])], empty_classes=True).class_counts == (1, 0)


def test_strict_refuses_what_was_skipped():
    refuse_skipped(())
    with pytest.raises(DataError, match="strict: 7 files cannot be used"):
        refuse_skipped(SKIPPED)


def test_reasons_are_counted_without_their_numbers():
    skipped = [Skipped(source=f"x{n}", reason=f"truncated ({n},000 of 5 bytes)") for n in range(3)]
    skipped += [Skipped(source="y", reason="empty"), Skipped(source=os.fsdecode(b"\xff"), reason="empty")]
    assert count_reasons(skipped) == {"truncated (N of N bytes)": 3, "empty": 2}
    assert name_some(skipped[2:]) == (r"3 files cannot be used: 2 empty (\xff, y); 1 truncated (2,000 of 5 bytes) (x2)")


def test_tasks_are_done_in_order_and_counted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(finalize_module, "_LINE_EVERY_S", 0.0)

    def double(number: int, progress: SampleProgress) -> int:
        progress.advance(number)
        return 2 * number

    assert map_with_progress(double, [1, 2], workers=1, total=3, noun="images") == [2, 4]
    assert [line.partition(" (")[0] for line in capsys.readouterr().err.splitlines()] == [
        "1 of 3 images",
        "3 of 3 images",
    ]


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_ends_the_other_tasks_at_their_next_sample(failing: int):
    """Whichever comes first, the error is what is raised."""
    begun = threading.Event()
    ends: list[int] = []

    def work(number: int, progress: SampleProgress) -> None:
        if number == failing:
            assert begun.wait(10)
            raise OSError("the disk is full")
        try:
            while True:
                begun.set()
                progress.advance()
        except Cancelled:
            ends.append(number)
            raise

    with pytest.raises(OSError, match="the disk is full"):
        map_with_progress(work, [0, 1], workers=2, total=9, noun="images")
    assert ends == [1 - failing]
