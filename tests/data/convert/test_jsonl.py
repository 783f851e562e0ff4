"""JSON lines become episodes: nothing lost unseen, the same bytes each time."""

import json
from pathlib import Path

import pytest

from framework.core.errors import DataError
from framework.data.convert.jsonl import write_jsonl_shards
from framework.data.shards.check import check_shards
from framework.data.shards.reader import ShardSet
from framework.data.shards.writer import WriteOptions
from framework.testing.shard_sets import all_samples, digests


def test_json_lines(tmp_path: Path):
    lines = [json.dumps({"task": number, "text": "é"}, ensure_ascii=False).encode() for number in range(5)]
    bad = [b"{", b"[1]", b"\xff", b'"text"']
    source = tmp_path / "tasks.jsonl"
    source.write_bytes(
        b"\xef\xbb\xbf" + b"\r\n".join([lines[0], b"", *lines[1:3], *bad]) + b"\n  " + b"\n".join(lines[3:])
    )
    manifest = write_jsonl_shards(source, tmp_path / "shards", options=WriteOptions(samples_per_shard=5))
    assert all_samples(tmp_path / "shards") == [(line, -1) for line in lines]
    assert manifest.kind == "episodes"
    assert [each.source for each in manifest.skipped] == ["line 5", "line 6", "line 7", "line 8"]
    assert [shard.num_samples for shard in manifest.shards] == [3, 2]
    assert ShardSet(tmp_path / "shards").member(3) == "000000007.json"
    assert check_shards(tmp_path / "shards") == []
    write_jsonl_shards(source, tmp_path / "again", options=WriteOptions(samples_per_shard=5, workers=1))
    assert digests(tmp_path / "again") == digests(tmp_path / "shards")
    with pytest.raises(DataError, match=r"strict: 4 files cannot be used: .*not JSON.* \(line 5\)"):
        write_jsonl_shards(source, tmp_path / "shards", options=WriteOptions(strict=True, overwrite=True))


def test_json_lines_that_are_none(tmp_path: Path):
    (tmp_path / "empty").write_text("\n\n")
    with pytest.raises(DataError, match="no sample is readable: 0 files"):
        write_jsonl_shards(tmp_path / "empty", tmp_path / "shards")
    with pytest.raises(DataError, match="missing cannot be read"):
        write_jsonl_shards(tmp_path / "missing", tmp_path / "shards")
    assert not (tmp_path / "shards" / "manifest.json").exists()


def test_damaged_episode_is_found(tmp_path: Path):
    (tmp_path / "x").write_text('{"a": 1}\n')
    write_jsonl_shards(tmp_path / "x", tmp_path / "shards")
    shard = tmp_path / "shards" / "shard-000000.tar"
    shard.write_bytes(shard.read_bytes().replace(b'{"a": 1}', b'{"a" 1 }'))
    problems = check_shards(tmp_path / "shards")
    assert len(problems) == 2
    assert "the JSON at byte 512 cannot be decoded" in problems[1]
