"""The commands around shards, as a user calls them."""

import json
from pathlib import Path

import pytest
from PIL import Image

from framework.cli.main import main
from framework.testing.containers import make_container
from framework.testing.images import make_image_shards
from framework.testing.servers.http_faults import serve_with_faults
from framework.testing.tars import image_bytes, write_tar


def error_of(capsys, *argv: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in argv])
    assert stopped.value.code == 2
    return capsys.readouterr().err.rstrip().splitlines()[-1]


def test_foreign_shards_from_index_to_peek(capsys, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory):
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
    sheet_path = tmp_path_factory.mktemp("sheet") / "peek.png"
    main(["shards", "peek", str(tmp_path), "--num", "4", "--out", str(sheet_path)])
    with Image.open(sheet_path) as sheet:
        assert sheet.size == (4 * 68, 68 + 16)
    assert f"{tmp_path} is a folder" in error_of(capsys, "shards", "peek", tmp_path, "--out", tmp_path)


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


def test_images_with_labels_of_a_file_back_to_their_source(capsys, tmp_path: Path):
    source = make_container(tmp_path, {f"in/{n}.png": image_bytes(n) for n in range(3)}, "tar.gz")
    (tmp_path / "labels.csv").write_text("where,kind\n2,bee\n0,ant\n")
    (tmp_path / "names").write_text("ant\nbee\ncow\n")
    words = ["shards", "images", source, tmp_path / "shards", "--folder", "in", "--labels", tmp_path / "labels.csv"]
    assert "--path_column" in error_of(capsys, *words)
    words += ["--path_column", "where", "--label_column", "kind", "--classes", tmp_path / "names"]
    main([str(word) for word in words])
    text = capsys.readouterr().err
    assert "skipped in/1.png: not in labels.csv" in text
    assert "2 images of 3 classes in 1 shards" in text
    main(["shards", "source", str(tmp_path / "shards"), "000000001.png"])
    assert capsys.readouterr().out == "000000001.png\tin/2.png\n"
    assert "has no sample 7" in error_of(capsys, "shards", "source", tmp_path / "shards", "sample 7")
    assert "use --unconditional" in error_of(capsys, "shards", "images", source, tmp_path / "x", "--folder", "in")
    main(["shards", "images", str(source), str(tmp_path / "x"), "--folder", "in", "--unconditional"])
    assert "3 images of 1 classes" in capsys.readouterr().err


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


def photos(folder: Path) -> Path:
    """A sound image, one that lies on its side, one that was cut, a thin one, and one that warns."""
    (folder / "cat").mkdir(parents=True)
    image = Image.radial_gradient("L").convert("RGB")
    image.save(folder / "cat" / "sound.jpg", quality=95)
    data = (folder / "cat" / "sound.jpg").read_bytes()
    (folder / "cat" / "cut.jpg").write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.resize((60, 40)).save(folder / "cat" / "side.jpg", exif=exif)
    image.resize((60, 4)).save(folder / "cat" / "thin.png")
    image.resize((50, 40)).save(folder / "cat" / "warns.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\x02\0\x12\x01\x03\0\x01")
    return folder


def test_how_images_are_read_is_told_and_kept(capsys, tmp_path: Path):
    source, dest = photos(tmp_path / "photos"), str(tmp_path / "shards")
    main(["shards", "images", str(source), dest])
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("skipped cat/cut.jpg: damaged: ") for line in lines)
    assert "1 are damaged: --damaged keep takes those that can be decoded all the same" in lines
    assert "turned upright by the EXIF orientation: 1 image, cat/side.jpg" in lines
    assert sum(line.endswith("1 image, cat/warns.jpg") and "Corrupt EXIF data" in line for line in lines) == 1
    assert lines[-1] == f"4 images of 1 classes in 1 shards in {dest}; 1 skipped"
    main(["shards", "check", dest, "--channels", "1", "--size", "16"])
    lines = capsys.readouterr().err.splitlines()
    assert "turned upright by the EXIF orientation: 1 image, shard-000000.tar/000000001.jpg" in lines
    assert lines[-1] == f"{dest} is complete and sound"
    main(["shards", "stats", dest])
    assert "turned upright by the EXIF" in capsys.readouterr().out


def test_other_ways_of_reading_images(capsys, tmp_path: Path):
    source, dest = photos(tmp_path / "photos"), str(tmp_path / "shards")
    options = ["--orientation", "ignore", "--damaged", "keep", "--min_side", "40", "--max_aspect", "1.25"]
    main(["shards", "images", str(source), dest, *options, "--max_pixels", "70000"])
    lines = capsys.readouterr().err.splitlines()
    assert "skipped cat/side.jpg: 60x40 pixels, longer than max_aspect 1.25" in lines
    assert "skipped cat/thin.png: 60x4 pixels, a side below min_side 40" in lines
    assert any(line.startswith("damaged, but kept: 1 image, cat/cut.jpg (") for line in lines)
    read = json.loads((tmp_path / "shards" / "manifest.json").read_text())["read"]
    assert read == {"orientation": "ignore", "damaged": "keep", "min_side": 40, "max_aspect": 1.25, "max_pixels": 70000}
    line = error_of(capsys, "shards", "check", dest, "--damaged", "refuse")
    assert "1 problems in" in line
    assert "--damaged keep counts" in line
    assert "max_aspect is 0.5" in error_of(capsys, "shards", "images", source, tmp_path / "x", "--max_aspect", 0.5)
    assert "size is 0" in error_of(capsys, "shards", "check", dest, "--size", 0)


@pytest.mark.parametrize("command", ["images", "imagenet", "hf", "index"])
def test_every_way_to_make_shards_of_images_says_how_they_are_read(capsys, command: str):
    with pytest.raises(SystemExit):
        main(["shards", command, "--help"])
    text = capsys.readouterr().out
    assert all(f"--{name}" in text for name in ("orientation", "damaged", "min_side", "max_aspect", "max_pixels"))
