"""Images of folders and archives become shards, the same whatever they come in; what does not is named."""

import gzip
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from framework.core.errors import DataError
from framework.data.convert.class_folders import write_image_shards
from framework.data.convert.find import FindOptions
from framework.data.shards.check import check_shards
from framework.data.shards.reader import ShardSet
from framework.data.shards.source_paths import find_source
from framework.testing.containers import CONTAINER_KINDS, make_container
from framework.testing.images import make_image_folder
from framework.testing.shard_sets import all_samples, digests
from framework.testing.tars import image_bytes, write_tar


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return make_image_folder(tmp_path / "images", per_class=3)


def contents_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def test_destination_inside_the_images(images: Path):
    with pytest.raises(DataError, match="lies inside the images"):
        write_image_shards(images, images / "shards")


def test_any_container_gives_the_same_set(images: Path, tmp_path: Path):
    sets = []
    for kind in CONTAINER_KINDS:
        (tmp_path / kind).mkdir()
        source = make_container(tmp_path / kind, contents_of(images), kind, prefix="./")
        write_image_shards(source, tmp_path / kind / "shards", samples_per_shard=4, workers=2)
        sets.append(digests(tmp_path / kind / "shards"))
    assert sets[0] == sets[1] == sets[2] == sets[3]
    assert [label for _, label in all_samples(tmp_path / "zip" / "shards")] == [0, 0, 0, 1, 1, 1]
    assert list(sets[0]) == ["index.npy", "manifest.json", "shard-000000.tar", "shard-000001.tar", "sources.tsv"]


def test_a_tar_gz_keeps_its_own_order(tmp_path: Path):
    members = [
        (f"{name}/{number}.png", image_bytes(number)) for number, name in ((5, "b"), (1, "a"), (3, "b"), (2, "a"))
    ]
    source = write_tar(tmp_path / "a.tar", members)
    source.write_bytes(gzip.compress(source.read_bytes()))
    write_image_shards(source, tmp_path / "shards", samples_per_shard=2)
    assert all_samples(tmp_path / "shards") == [(data, int(name[0] == "b")) for name, data in members]
    assert find_source(tmp_path / "shards", "sample 2").path == "b/3.png"
    assert check_shards(tmp_path / "shards") == []


@pytest.mark.parametrize("suffix", ["avif", "jfif", "jp2", "tga", "qoi", "ico", "dds"])
def test_a_class_of_one_format(images: Path, tmp_path: Path, suffix: str):
    """Used to be "holds no image: add images to it"."""
    (images / "ant").mkdir()
    Image.open(images / "cat" / "0000.png").save(images / "ant" / f"1.{suffix}")
    manifest = write_image_shards(images, tmp_path / "shards")
    assert (manifest.class_counts, manifest.skipped) == ((1, 3, 3), ())
    assert ShardSet(tmp_path / "shards").member(0) == f"000000000.{'jpg' if suffix == 'jfif' else suffix}"
    assert check_shards(tmp_path / "shards") == []


def test_a_zip_that_holds_a_name_twice(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a/1.png", image_bytes(1))
        archive.writestr("a/2.png", image_bytes(2))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a/1.png", image_bytes(3))
    manifest = write_image_shards(tmp_path / "a.zip", tmp_path / "shards")
    assert [data for data, _ in all_samples(tmp_path / "shards")] == [image_bytes(3), image_bytes(2)]
    assert manifest.left_out == {"another file of the same name follows in the archive": 1}
    with pytest.raises(DataError, match=r"strict: 1 files .* of the same name follows .* \(a/1.png\)"):
        write_image_shards(tmp_path / "a.zip", tmp_path / "strict", strict=True)


def test_links_are_followed_on_request(images: Path, tmp_path: Path):
    elsewhere = make_image_folder(tmp_path / "elsewhere", classes=("bee",), per_class=2)
    (images / "bee").symlink_to(elsewhere / "bee")
    (images / "cat" / "linked.png").symlink_to(elsewhere / "bee" / "0000.png")
    manifest = write_image_shards(images, tmp_path / "shards")
    assert manifest.classes == ("cat", "dog")
    assert {each.source: each.reason for each in manifest.skipped} == {
        "bee": "a link to a folder (--follow_links follows it)",
        "cat/linked.png": "a link that leaves the source (--follow_links follows it)",
    }
    manifest = write_image_shards(images, tmp_path / "all", find=FindOptions(follow_links=True))
    assert dict(zip(manifest.classes, manifest.class_counts, strict=True)) == {"bee": 2, "cat": 4, "dog": 3}
    assert manifest.skipped == ()


def test_a_class_of_links_alone_says_so(images: Path, tmp_path: Path):
    (images / "ant").mkdir()
    (images / "ant" / "1.png").symlink_to("/etc/hostname")
    with pytest.raises(DataError, match=r"class 'ant' .* holds no image: 1 files .*--follow_links.* \(ant/1.png\)"):
        write_image_shards(images, tmp_path / "shards")


def test_a_file_whose_name_is_not_utf_8(images: Path, tmp_path: Path):
    """Used to raise when the manifest was written, after all shards."""
    (images / "cat" / "0001.png").rename(images / "cat" / os.fsdecode(b"caf\xe9.png"))
    (images / "dog" / "0002.png").rename(images / "dog" / os.fsdecode(b"na\xefve.txt"))
    manifest = write_image_shards(images, tmp_path / "shards")
    assert manifest.class_counts == (3, 2)
    assert [each.source for each in manifest.skipped] == [r"dog/na\xefve.txt"]
    assert find_source(tmp_path / "shards", "sample 2").path == r"cat/caf\xe9.png"
    assert check_shards(tmp_path / "shards") == []


@pytest.mark.parametrize("archive", [False, True])
def test_a_class_whose_name_is_not_utf_8(images: Path, tmp_path: Path, archive: bool):
    (images / "cat").rename(images / os.fsdecode(b"caf\xe9"))
    source = images
    if archive:
        source = tmp_path / "a.tar"
        with tarfile.open(source, "w") as target:
            target.add(images, ".")
    with pytest.raises(DataError, match=r"the class 'caf\\xe9' has a name that is not UTF-8: rename its folder"):
        write_image_shards(source, tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_labels_of_a_csv_file(tmp_path: Path):
    source = make_container(tmp_path, {f"{n}.png": image_bytes(n) for n in range(4)} | {"x": image_bytes(9)}, "tar.gz")
    (tmp_path / "labels.csv").write_text("file,label\n3.png,ant\n1.png,bee\n2.png,ant\nx,bee\n")
    manifest = write_image_shards(source, tmp_path / "shards", find=FindOptions(labels=tmp_path / "labels.csv"))
    assert (manifest.classes, manifest.class_counts) == (("ant", "bee"), (2, 2))
    assert all_samples(tmp_path / "shards") == [
        (image_bytes(n), label) for n, label in ((1, 1), (2, 0), (3, 0), (9, 1))
    ]
    # A file that has no suffix gets that of its format.
    assert ShardSet(tmp_path / "shards").member(3) == "000000003.png"
    assert manifest.left_out == {"not in labels.csv": 1}


def test_images_without_classes(tmp_path: Path):
    source = make_container(tmp_path, {f"{n}.png": image_bytes(n) for n in range(3)}, "folder")
    manifest = write_image_shards(source, tmp_path / "shards", find=FindOptions(unconditional=True))
    assert (manifest.classes, manifest.class_counts, manifest.unconditional) == (("all",), (3,), True)
    assert all_samples(tmp_path / "shards") == [(image_bytes(n), 0) for n in range(3)]
    assert check_shards(tmp_path / "shards") == []


def test_a_bomb_is_refused_with_its_size(tmp_path: Path):
    """A zip member of 3 GB of zeros: 3 MB in the archive, read whole before."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a/1.png", image_bytes(1))
        archive.writestr("a/2.png", bytes(1000))
    data = (tmp_path / "a.zip").read_bytes()
    size = (1000).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(data.replace(size, (3 << 30).to_bytes(4, "little")))
    manifest = write_image_shards(tmp_path / "a.zip", tmp_path / "shards")
    assert [(each.source, each.reason) for each in manifest.skipped] == [
        ("a/2.png", "3,221,225,472 bytes, more than 268,435,456")
    ]


def test_hidden_files_are_counted(images: Path, tmp_path: Path):
    (images / "cat" / ".DS_Store").write_bytes(b"")
    (images / ".thumbs").mkdir()
    (images / ".thumbs" / "1.png").write_bytes(b"")
    manifest = write_image_shards(images, tmp_path / "shards", strict=True)
    assert manifest.left_out == {"hidden: a name with a dot before it, or __MACOSX": 2}
