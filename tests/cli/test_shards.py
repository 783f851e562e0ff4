"""The commands around shards, as a user calls them."""

import json
from pathlib import Path

import pytest
from PIL import Image

from framework.cli.main import main
from framework.testing.images import make_image_shards
from framework.testing.servers.http_faults import serve_with_faults
from framework.testing.tars import image_bytes, write_tar


def error_of(capsys, *argv: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in argv])
    assert stopped.value.code == 2
    return capsys.readouterr().err.rstrip().splitlines()[-1]


def test_foreign_shards_from_index_to_peek(capsys, tmp_path: Path):
    members = [(f"{n}.{suffix}", data) for n in range(5) for suffix, data in (("jpg", image_bytes(n)), ("cls", b"1"))]
    write_tar(tmp_path / "a.tar", members)
    (tmp_path / "names").write_bytes(b"\xef\xbb\xbfant\n\nbee\n")
    assert "names, line 2 is empty" in error_of(capsys, "shards", "index", tmp_path, "--classes", tmp_path / "names")
    (tmp_path / "names").write_bytes(b"\xef\xbb\xbfant\r\nbee\r\n\r\n")
    main(["shards", "index", str(tmp_path), "--classes", str(tmp_path / "names")])
    assert "5 images of 2 classes in 1 shards" in capsys.readouterr().err
    assert "--overwrite" in error_of(capsys, "shards", "index", tmp_path)
    line = error_of(capsys, "shards", "index", tmp_path, "--overwrite", "--max_member_mib", 0)
    assert "max_member_bytes is 0" in line
    main(["shards", "check", str(tmp_path)])
    main(["shards", "stats", str(tmp_path)])
    text = capsys.readouterr().out
    assert all(word in text for word in ("5 images in 1 shards", "ant", "bee", "8x8", "RGB", "a.tar"))
    main(["shards", "peek", str(tmp_path), "--num", "4", "--out", str(tmp_path / "peek.png")])
    with Image.open(tmp_path / "peek.png") as sheet:
        assert sheet.size == (4 * 68, 68)


def test_episodes_from_json_lines_to_peek(capsys, tmp_path: Path):
    (tmp_path / "tasks.jsonl").write_text('{"task": 1}\nnothing\n{"task": 2}\n')
    assert "line 2" in error_of(capsys, "shards", "jsonl", tmp_path / "tasks.jsonl", tmp_path / "x", "--strict")
    main(["shards", "jsonl", str(tmp_path / "tasks.jsonl"), str(tmp_path / "shards")])
    text = capsys.readouterr().err
    assert "skipped line 2: not JSON" in text
    assert "2 episodes in 1 shards" in text
    main(["shards", "peek", str(tmp_path / "shards"), "--num", "1"])
    assert json.loads(capsys.readouterr().out) == {"task": 1}
    main(["shards", "stats", str(tmp_path / "shards")])
    assert "2 episodes in 1 shards" in capsys.readouterr().out


def test_imagenet(capsys, tmp_path: Path):
    source = write_tar(tmp_path / "val.tar", [("a.JPEG", image_bytes(1, format="JPEG"))])
    assert "--labels FILE" in error_of(capsys, "shards", "imagenet", source, tmp_path / "shards")
    (tmp_path / "labels").write_text("n01440764\n")
    main(["shards", "imagenet", str(source), str(tmp_path / "shards"), "--labels", str(tmp_path / "labels")])
    assert "1 images of 1 classes" in capsys.readouterr().err


def test_hf(capsys, tmp_path: Path):
    pytest.importorskip("datasets")
    assert "no dataset at" in error_of(capsys, "shards", "hf", tmp_path / "missing", tmp_path / "x")


@pytest.mark.slow
def test_set_at_a_url(capsys, tmp_path: Path):
    make_image_shards(tmp_path, per_class=2, samples_per_shard=2)
    with serve_with_faults(tmp_path / "shards") as server:
        cache = ["--cache.folder", str(tmp_path / "cache")]
        main(["shards", "stats", server.url, *cache])
        assert "4 images in 2 shards" in capsys.readouterr().out
        main(["shards", "peek", server.url, "--out", str(tmp_path / "peek.png"), *cache])
        assert (tmp_path / "peek.png").stat().st_size > 0
        assert "time_limit_s is 0" in error_of(capsys, "shards", "stats", server.url, "--cache.time_limit_s", 0)
