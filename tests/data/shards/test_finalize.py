"""The end of every way to make a set: the index and the manifest of known shards, by hand."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framework.core.errors import DataError
from framework.data.shards.finalize import Indexed, finalize_set, map_with_progress, refuse_skipped
from framework.data.shards.manifest import ShardRecord, Skipped, read_manifest

SKIPPED = tuple(Skipped(source=f"x{number}", reason="odd") for number in range(7))


def indexed(name: str | None, rows: list[tuple[int, int, int]]) -> Indexed:
    record = ShardRecord(name=name, num_samples=len(rows), num_bytes=100, sha256="0" * 64) if name else None
    count = len(rows)
    return Indexed(
        record=record,
        rows=np.array(rows, dtype=np.int64).reshape(-1, 3),
        sizes=Counter({"8x8": count - 1, "4x4": 1}) if count else Counter(),
        modes=Counter({"L": count}) if count else Counter(),
        skipped=(),
    )


def finalize(dest: Path, shards: list[Indexed], **changes: Any) -> Any:
    options = {"classes": ("a", "b"), "kind": "images", "skipped": SKIPPED, "empty_classes": False, **changes}
    return finalize_set(dest, shards, **options)


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


def test_sets_that_lack_something_have_no_manifest(tmp_path: Path):
    with pytest.raises(
        DataError, match=r"class 'b' holds no readable image: 7 files cannot be used: x0 \(odd\); .*and 2 more"
    ):
        finalize(tmp_path, [indexed("s0", [(512, 5, 0)])])
    with pytest.raises(DataError, match="no sample is readable"):
        finalize(tmp_path, [indexed(None, [])], empty_classes=True)
    assert not (tmp_path / "manifest.json").exists()
    assert finalize(tmp_path, [indexed("s0", [(512, 5, 0)])], empty_classes=True).class_counts == (1, 0)


def test_strict_refuses_what_was_skipped():
    refuse_skipped(())
    with pytest.raises(DataError, match="strict: 7 files cannot be used"):
        refuse_skipped(SKIPPED)
    assert map_with_progress(abs, [-1, 2], workers=1) == [1, 2]
