"""A member leads back to the file that it was."""

import os
from pathlib import Path

import pytest

from framework.core.errors import ConfigError, DataError
from framework.data.convert.class_folders import write_image_shards
from framework.data.convert.index import index_shards
from framework.data.convert.jsonl import write_jsonl_shards
from framework.data.shards.check import check_shards
from framework.data.shards.source_paths import SourcePath, find_source, write_source_paths
from framework.testing.images import make_image_folder
from framework.testing.servers.http_faults import serve_with_faults
from framework.testing.tars import image_bytes, write_tar


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    images = make_image_folder(tmp_path / "images", per_class=3)
    (images / "cat" / "0001.png").write_bytes(b"not an image")
    (images / "dog" / "0002.png").rename(images / "dog" / os.fsdecode(b"caf\xe9\t.png"))
    write_image_shards(images, tmp_path / "shards", samples_per_shard=2)
    return tmp_path / "shards"


@pytest.mark.parametrize(
    ("member", "path"),
    [
        ("000000002.png", "cat/0002.png"),
        ("000000002", "cat/0002.png"),
        ("shard-000001.tar/000000002.png", "cat/0002.png"),
        # One before it was left out.
        ("sample 1", "cat/0002.png"),
        ("000000005.png", "dog/caf\\xe9\t.png"),
    ],
)
def test_by_member_and_by_number(dest: Path, member: str, path: str):
    assert find_source(dest, member).path == path


def test_what_is_not_there(dest: Path):
    with pytest.raises(ConfigError, match=r"has no member '000000001.png': it holds 5 samples, such as 000000000.png"):
        find_source(dest, "000000001.png")
    with pytest.raises(ConfigError, match="has no sample 5"):
        find_source(dest, "sample 5")


def test_it_is_checked(dest: Path):
    assert check_shards(dest) == []
    (dest / "sources.tsv").write_text("x\ty\n")
    assert check_shards(dest) == ["sources.tsv: its sha256 is not the manifest's"]
    (dest / "sources.tsv").unlink()
    assert check_shards(dest) == ["sources.tsv: missing"]
    with pytest.raises(DataError, match=r"sources.tsv cannot be read .*: copy it"):
        find_source(dest, "sample 0")


def test_lines_of_a_file(tmp_path: Path):
    (tmp_path / "tasks.jsonl").write_text('{"a": 1}\n\nnothing\n{"a": 2}\n')
    write_jsonl_shards(tmp_path / "tasks.jsonl", tmp_path / "shards")
    assert find_source(tmp_path / "shards", "sample 1") == SourcePath(member="000000002.json", path="line 4")


def test_shards_of_others_are_their_own_source(tmp_path: Path):
    write_tar(tmp_path / "a.tar", [("a.png", image_bytes(1)), ("a.cls", b"0")])
    index_shards(tmp_path)
    with pytest.raises(DataError, match="its members are its sources"):
        find_source(tmp_path, "a.png")


def test_odd_paths_take_one_line(tmp_path: Path):
    paths = [SourcePath(member="0.png", path="a\tb\nc\\n"), SourcePath(member="1.png", path="é")]
    write_source_paths(tmp_path, paths)
    assert (tmp_path / "sources.tsv").read_bytes() == b"0.png\ta\\tb\\nc\\\\n\n1.png\t\xc3\xa9\n"


@pytest.mark.slow
def test_a_set_at_a_url(dest: Path):
    with serve_with_faults(dest) as server:
        assert find_source(server.url, "000000002.png").path == "cat/0002.png"
