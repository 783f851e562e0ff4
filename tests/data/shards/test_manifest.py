"""The manifest: the round trip, and what is refused with the file's name."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from framework.core.errors import DataError
from framework.data.images.notes import ImageNote
from framework.data.images.options import ReadOptions
from framework.data.shards.manifest import Manifest, ShardRecord, parse_manifest, read_manifest

MANIFEST = Manifest(
    classes=("a", "b"),
    class_counts=(1, 1),
    num_samples=2,
    num_bytes=2048,
    image_sizes={"4x4": 2},
    image_modes={"L": 2},
    shards=(ShardRecord(name="shard-000000.tar", num_samples=2, num_bytes=2048, sha256="0" * 64),),
    index_sha256="f" * 64,
    skipped=(),
)


def record(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    MANIFEST.write(tmp_path)
    return {**json.loads((tmp_path / "manifest.json").read_text()), **changes}


@pytest.mark.parametrize("kind", ["images", "episodes"])
def test_the_round_trip(tmp_path: Path, kind):
    read = ReadOptions(orientation="ignore", damaged="keep", min_side=2, max_aspect=4.5, max_pixels=100)
    notes = (ImageNote(what="turned", count=2, first="a/1.jpg"),)
    manifest = replace(MANIFEST, kind=kind, label_key="label", read=read, notes=notes)
    manifest.write(tmp_path)
    assert read_manifest(tmp_path) == manifest


def test_a_manifest_from_before_there_were_label_keys(tmp_path: Path):
    old = record(tmp_path)
    for key in ("label_key", "read", "notes"):
        del old[key]
    assert parse_manifest(json.dumps(old).encode(), where="x") == MANIFEST


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"format_version": 2}, r"x has format version 2 and kind 'images', not 1 and images or episodes"),
        ({"kind": "sounds"}, r"kind 'sounds'"),
        ({"num_samples": 0}, "x describes a set without a sample"),
        ({"num_samples": "2"}, r"x is damaged \(num_samples is '2', not int\)"),
        ({"colours": 3}, "unknown 'colours'"),
        ({"index_sha256": "F" * 64}, "is not a SHA-256"),
        ({"index_sha256": "../../../x"}, "is not a SHA-256"),
        ({"shards": [{"name": "a/b", "num_samples": 2, "num_bytes": 1, "sha256": "0" * 64}]}, "not a plain file name"),
        ({"shards": [{"name": "", "num_samples": 2, "num_bytes": 1, "sha256": "0" * 64}]}, "not a plain file name"),
    ],
)
def test_what_is_refused(tmp_path: Path, changes: dict[str, Any], problem: str):
    with pytest.raises(DataError, match=problem):
        parse_manifest(json.dumps(record(tmp_path, **changes)).encode(), where="x")


def test_files_that_are_none(tmp_path: Path):
    with pytest.raises(DataError, match=r"no shard set at .*missing"):
        read_manifest(tmp_path / "missing")
    with pytest.raises(DataError, match=r"has no manifest.json, so it is not a shard set, or an unfinished one"):
        read_manifest(tmp_path)
    for data in (b"{", b"\xff", b"[]"):
        with pytest.raises(DataError, match="x cannot be read"):
            parse_manifest(data, where="x")


def test_options_that_make_no_sense(tmp_path: Path):
    data = json.dumps(record(tmp_path, read={"min_side": 0})).encode()
    with pytest.raises(DataError, match=r"manifest.json is damaged \(min_side is 0"):
        parse_manifest(data, where="manifest.json")
