"""Shards are the images that were given, whole, the same bytes each time, and never look complete before they are."""

import errno
import gc
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import webdataset
from PIL import Image

from framework.core.errors import ConfigError, DataError
from framework.data.convert.class_folders import write_image_shards
from framework.data.convert.find import FindOptions
from framework.data.convert.folder_container import FolderContainer
from framework.data.shards import writer
from framework.data.shards.check import check_shards
from framework.data.shards.reader import ShardSet
from framework.data.shards.validate_sample import validate_sample
from framework.data.shards.writer import SourceFile
from framework.testing.images import make_image_folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return make_image_folder(tmp_path / "images", classes=("ape", "bee", "cat"), per_class=3)


def zip_of(folder: Path, path: Path, *, prefix: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, prefix + file.relative_to(folder).as_posix())
    return path


def digests(dest: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(dest.iterdir())}


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_every_image_comes_back_as_it_was(images: Path, tmp_path: Path):
    manifest = write_image_shards(images, tmp_path / "shards", samples_per_shard=4)
    files = sorted(images.rglob("*.png"))
    shards = ShardSet(tmp_path / "shards")
    assert shards.classes == ("ape", "bee", "cat")
    assert [shards.read(number) for number in range(len(shards))] == [
        (file.read_bytes(), shards.classes.index(file.parent.name)) for file in files
    ]
    assert [record.num_samples for record in manifest.shards] == [4, 4, 1]
    assert manifest.class_counts == (3, 3, 3)
    assert (manifest.image_sizes, manifest.image_modes, manifest.skipped) == ({"16x16": 9}, {"RGB": 9}, ())
    assert check_shards(tmp_path / "shards") == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # WebDataset leaves its last shard open.
def test_webdataset_reads_the_shards(tmp_path: Path):
    images = make_image_folder(tmp_path / "images", classes=("a",), suffix=".JPEG")
    make_image_folder(images, classes=("b",))
    write_image_shards(images, tmp_path / "shards", samples_per_shard=3)
    urls = [path.as_posix() for path in sorted((tmp_path / "shards").glob("*.tar"))]
    reader = webdataset.WebDataset(urls, shardshuffle=False).decode("pil").to_tuple("png;jpg", "cls")
    read = list(reader)
    del reader
    gc.collect()
    assert [label for _, label in read] == [0, 0, 0, 0, 1, 1, 1, 1]
    expected = Image.open(images / "b" / "0003.png").convert("RGB")
    assert read[-1][0].tobytes() == expected.tobytes()


def test_bytes_depend_on_the_images_alone(images: Path, tmp_path: Path):
    archive = zip_of(images, tmp_path / "images.zip", prefix="./")
    results = []
    for number, (source, workers) in enumerate([(images, 1), (images, 2), (archive, 2)]):
        dest = tmp_path / f"shards{number}"
        write_image_shards(source, dest, workers=workers, samples_per_shard=2)
        results.append(digests(dest))
    assert len(results[0]) == 8
    assert results[0] == results[1] == results[2]


def test_unreadable_images_are_listed(images: Path, tmp_path: Path):
    make_image_folder(images, classes=("bee",), per_class=2, suffix=".jpg", size=64)
    truncate(images / "bee" / "0001.jpg")
    (images / "ape" / "0000.png").write_bytes(b"")
    (images / "cat" / "notes.txt").write_text("no image")
    (images / "cat" / ".hidden").write_text("")
    (images / "cat" / "link.png").symlink_to("/etc/hostname")
    (images / "loose.png").write_bytes(b"")
    manifest = write_image_shards(images, tmp_path / "shards", samples_per_shard=1)
    reasons = {each.source: each.reason for each in manifest.skipped}
    assert "truncated" in reasons.pop("bee/0001.jpg").lower()
    assert reasons == {
        "ape/0000.png": "an empty file",
        "cat/notes.txt": "not an image file name",
        "cat/link.png": "a link that leaves the source (--follow_links follows it)",
        "loose.png": "not in a class folder",
    }
    assert manifest.class_counts == (2, 4, 3)
    assert check_shards(tmp_path / "shards") == []


def test_strict_refuses_unreadable_images(images: Path, tmp_path: Path):
    for file in images.rglob("*.png"):
        truncate(file)
    with pytest.raises(DataError, match=r"strict: 9 files cannot be used: \d .* \(ape/0000.png.*--strict"):
        write_image_shards(images, tmp_path / "shards", strict=True, samples_per_shard=4, workers=1)
    assert not (tmp_path / "shards" / "manifest.json").exists()


def test_class_without_a_readable_image(images: Path, tmp_path: Path):
    for file in (images / "bee").iterdir():
        truncate(file)
    (images / "ape" / "notes.txt").write_text("of another class")
    with pytest.raises(DataError, match=r"class 'bee' holds no readable image: 3 files cannot be used: .*bee/0000.png"):
        write_image_shards(images, tmp_path / "shards")
    assert not (tmp_path / "shards" / "manifest.json").exists()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_odd_modes_are_kept(tmp_path: Path, mode: str):
    images = make_image_folder(tmp_path / "images", mode="L" if mode == "I;16" else mode)
    if mode == "I;16":
        for file in images.rglob("*.png"):
            Image.open(file).convert("I").convert("I;16").save(file)
    manifest = write_image_shards(images, tmp_path / "shards")
    assert list(manifest.image_modes) == [mode]


def test_finished_set_is_kept_unless_overwritten(images: Path, tmp_path: Path):
    dest = tmp_path / "shards"
    write_image_shards(images, dest, samples_per_shard=1)
    before = digests(dest)
    with pytest.raises(DataError, match=r"already holds a shard set.*--overwrite"):
        write_image_shards(images, dest)
    assert digests(dest) == before
    assert len(write_image_shards(images, dest, overwrite=True).shards) == 1
    assert check_shards(dest) == []


def test_foreign_folder_is_left_alone(images: Path, tmp_path: Path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match=r"holds files that are no shards, such as 'thesis.tex'"):
        write_image_shards(images, tmp_path / "shards", overwrite=True)
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["thesis.tex"]


def test_unfinished_set_is_written_anew(images: Path, tmp_path: Path):
    dest = tmp_path / "shards"
    dest.mkdir()
    for name in (
        "shard-000000.tar",
        "shard-000077.tar",
        "shard-000001.tar.partial",
        "index.npy",
        "index.npy.partial",
        "conversion.jsonl",
        "sources.tsv",
    ):
        (dest / name).write_bytes(b"left over")
    write_image_shards(images, dest)
    found = sorted(path.name for path in dest.iterdir())
    assert found == ["index.npy", "manifest.json", "shard-000000.tar", "sources.tsv"]
    assert check_shards(dest) == []


def interrupted(monkeypatch: pytest.MonkeyPatch, after: int) -> list[int]:
    """Makes the next conversion stop as Ctrl-C does, at its `after`-th image; counts the images that are decoded."""
    decoded: list[int] = []
    stop = after

    def validate(data: bytes, **options: Any) -> Any:
        nonlocal stop
        decoded.append(len(data))
        if len(decoded) == stop:
            stop = 0
            raise KeyboardInterrupt
        return validate_sample(data, **options)

    monkeypatch.setattr(writer, "validate_sample", validate)
    return decoded


def test_an_interrupted_conversion_goes_on(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (images / "ape" / "0001.png").write_bytes(b"no image")
    write_image_shards(images, tmp_path / "whole", samples_per_shard=2, workers=1)
    decoded = interrupted(monkeypatch, after=6)
    with pytest.raises(KeyboardInterrupt):
        write_image_shards(images, tmp_path / "shards", samples_per_shard=2, workers=1)
    names = sorted(path.name for path in (tmp_path / "shards").iterdir())
    assert names == ["conversion.jsonl", "shard-000000.tar", "shard-000001.tar"]
    capsys.readouterr()
    decoded.clear()
    manifest = write_image_shards(images, tmp_path / "shards", samples_per_shard=2, workers=1)
    assert "which holds 2 of 5 shards" in capsys.readouterr().err
    assert len(decoded) == 5
    assert digests(tmp_path / "shards") == digests(tmp_path / "whole")
    assert [each.source for each in manifest.skipped] == ["ape/0001.png"]
    assert check_shards(tmp_path / "shards") == []


@pytest.mark.parametrize(
    ("change", "num_decoded"),
    [
        ("nothing", 5),
        ("image of the first shard", 7),
        ("new image behind both", 6),
        ("new image before all", 10),
        ("options", 9),
        ("damaged shard", 7),
        ("lost shard", 7),
    ],
)
def test_what_has_changed_since_is_written_anew(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, num_decoded: int
):
    """Of nine images in shards of two, those of the shards that have changed; two shards were complete."""
    dest, samples, first = tmp_path / "shards", 2, images / "ape" / "0000.png"
    decoded = interrupted(monkeypatch, after=6)
    with pytest.raises(KeyboardInterrupt):
        write_image_shards(images, dest, samples_per_shard=samples, workers=1)
    decoded.clear()
    if change == "image of the first shard":
        shutil.copyfile(images / "ape" / "0001.png", first)
    elif change == "new image behind both":
        shutil.copyfile(first, images / "cat" / "0009.png")
    elif change == "new image before all":
        shutil.copyfile(first, images / "ape" / "00.png")
    elif change == "options":
        samples = 3
    elif change == "damaged shard":
        (dest / "shard-000001.tar").write_bytes(bytes((dest / "shard-000001.tar").stat().st_size))
    elif change == "lost shard":
        (dest / "shard-000001.tar").unlink()
    write_image_shards(images, dest, samples_per_shard=samples, workers=1)
    assert len(decoded) == num_decoded
    decoded.clear()
    write_image_shards(images, tmp_path / "whole", samples_per_shard=samples, workers=1)
    assert digests(dest) == digests(tmp_path / "whole")


def test_a_zip_that_was_made_anew_is_known_by_its_members(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source, dest = zip_of(images, tmp_path / "images.zip"), tmp_path / "shards"
    decoded = interrupted(monkeypatch, after=6)
    with pytest.raises(KeyboardInterrupt):
        write_image_shards(source, dest, samples_per_shard=2, workers=1)
    decoded.clear()
    shutil.copyfile(images / "ape" / "0001.png", images / "ape" / "0000.png")
    os.utime(zip_of(images, source), ns=(1, 1))
    write_image_shards(source, dest, samples_per_shard=2, workers=1)
    assert len(decoded) == 7
    write_image_shards(images, tmp_path / "whole", samples_per_shard=2)
    assert digests(dest) == digests(tmp_path / "whole")


def test_what_could_not_be_read_is_tried_again(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    read = FolderContainer.read

    def refused(container: FolderContainer, file: SourceFile) -> bytes:
        if file.path == "ape/0000.png":
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(container, file)

    monkeypatch.setattr(FolderContainer, "read", refused)
    interrupted(monkeypatch, after=5)
    with pytest.raises(KeyboardInterrupt):
        write_image_shards(images, tmp_path / "shards", samples_per_shard=2, workers=1)
    monkeypatch.undo()
    assert "Permission denied" in (tmp_path / "shards" / "conversion.jsonl").read_text()
    manifest = write_image_shards(images, tmp_path / "shards", samples_per_shard=2, workers=1)
    assert (manifest.num_samples, manifest.skipped) == (9, ())


@pytest.mark.slow
def test_killed_run_leaves_no_manifest_and_the_next_goes_on(tmp_path: Path):
    images = make_image_folder(tmp_path / "images", per_class=40, size=64)
    dest = tmp_path / "shards"
    code = "import sys; from framework.data.convert.class_folders import write_image_shards as w; "
    code += "w(*sys.argv[1:], samples_per_shard=1)"
    process = subprocess.Popen([sys.executable, "-c", code, images, dest])
    while not (dest / "shard-000010.tar").exists():
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (dest / "manifest.json").exists()
    assert check_shards(dest)
    with pytest.raises(DataError, match="unfinished"):
        ShardSet(dest)
    before = (dest / "shard-000003.tar").stat().st_mtime_ns
    write_image_shards(images, dest, samples_per_shard=1)
    assert (dest / "shard-000003.tar").stat().st_mtime_ns == before
    assert check_shards(dest) == []
    write_image_shards(images, tmp_path / "whole", samples_per_shard=1)
    assert digests(dest) == digests(tmp_path / "whole")
    write_image_shards(images, dest, samples_per_shard=20, overwrite=True)
    assert len(ShardSet(dest)) == 80


# No file of this process may grow beyond 8 KiB: a write fails as on a full disk.
WITH_SMALL_FILES = """
import resource, sys
from framework.data.convert.class_folders import write_image_shards
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
write_image_shards(*sys.argv[1:])
"""


@pytest.mark.slow
def test_full_disk(images: Path, tmp_path: Path):
    command = [sys.executable, "-c", WITH_SMALL_FILES, images, tmp_path / "shards"]
    run = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert re.search(r"DataError: cannot write .*shard-000000.tar \(File too large\)", run.stderr), run.stderr
    # Nothing but the note of what was to be written.
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["conversion.jsonl"]


def test_destination_that_cannot_be_made(images: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write .*file"):
        write_image_shards(images, tmp_path / "file" / "shards")


def test_destination_in_use(images: Path, tmp_path: Path):
    code = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], 0), fcntl.LOCK_EX); print(flush=True); input()"
    command = [sys.executable, "-c", code, tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        (tmp_path / "shards").mkdir()
        with pytest.raises(DataError, match="another process is writing"):
            write_image_shards(images, tmp_path)
        other.kill()


@pytest.mark.parametrize("change", [{"samples_per_shard": 0}, {"workers": -1}])
def test_numbers_out_of_range(images: Path, tmp_path: Path, change: dict):
    with pytest.raises(ConfigError, match=f"{next(iter(change))} is"):
        write_image_shards(images, tmp_path / "shards", **change)


def test_cifar10(tmp_path: Path):
    data = os.environ.get("FRAMEWORK_DATA")
    if data is None:
        pytest.skip("FRAMEWORK_DATA names no folder with cifar10.zip")
    manifest = write_image_shards(Path(data) / "cifar10.zip", tmp_path / "shards", find=FindOptions(folder="test"))
    assert manifest.class_counts == (1000,) * 10
    assert (manifest.image_sizes, manifest.image_modes, manifest.skipped) == ({"32x32": 10000}, {"RGB": 10000}, ())
    assert manifest.classes[:2] == ("airplane", "automobile")
    assert check_shards(tmp_path / "shards") == []
