"""ImageNet's archives become shards: nothing lost unseen, the same bytes each time."""

import tarfile
from pathlib import Path

import pytest

from framework.core.errors import ConfigError, DataError
from framework.data.convert.imagenet import write_imagenet_shards
from framework.data.shards.check import check_shards
from framework.data.shards.reader import ShardSet
from framework.data.shards.writer import WriteOptions
from framework.testing.shard_sets import all_samples, digests
from framework.testing.tars import image_bytes, write_tar

WNIDS = ("n01440764", "n01443537", "n02119789")


def train_tar(folder: Path, *, damage: bool = False) -> Path:
    outer = []
    for label in (2, 0, 1):
        inner = folder / "inner.tar"
        images = [
            (f"{WNIDS[label]}_{number}.JPEG", image_bytes(50 * label + number, format="JPEG")) for number in (2, 1)
        ]
        data = write_tar(inner, images).read_bytes()
        outer.append((f"{WNIDS[label]}.tar", data[:1024] if damage and label == 1 else data))
        inner.unlink()
    return write_tar(folder / "train.tar", outer)


def val_tar(folder: Path) -> Path:
    images = [(f"ILSVRC2012_val_{number:08d}.JPEG", image_bytes(number, format="JPEG")) for number in (3, 1, 2, 4)]
    return write_tar(folder / "val.tar", images)


def test_imagenet_train(tmp_path: Path):
    source = train_tar(tmp_path)
    manifest = write_imagenet_shards(source, tmp_path / "shards", options=WriteOptions(samples_per_shard=4))
    assert manifest.classes == WNIDS
    expected = [(image_bytes(50 * label + number, format="JPEG"), label) for label in range(3) for number in (1, 2)]
    assert all_samples(tmp_path / "shards") == expected
    assert [shard.num_samples for shard in manifest.shards] == [4, 2]
    assert check_shards(tmp_path / "shards") == []
    write_imagenet_shards(source, tmp_path / "again", options=WriteOptions(samples_per_shard=4, workers=1))
    assert digests(tmp_path / "again") == digests(tmp_path / "shards")


def test_imagenet_class_tar_that_is_cut(tmp_path: Path):
    with pytest.raises(DataError, match=r"train.tar cannot be read \(in member 'n01443537.tar': .*\): give a whole"):
        write_imagenet_shards(train_tar(tmp_path, damage=True), tmp_path / "shards")


def test_imagenet_tar_that_is_cut(tmp_path: Path):
    source = train_tar(tmp_path)
    source.write_bytes(source.read_bytes()[:15_000])
    with pytest.raises(DataError, match=r"train.tar cannot be read \(.*\): give a whole"):
        write_imagenet_shards(source, tmp_path / "shards")
    with pytest.raises(DataError, match=r"nothing.tar cannot be read \(No such file"):
        write_imagenet_shards(tmp_path / "nothing.tar", tmp_path / "shards")


@pytest.mark.parametrize("numbered", [False, True])
def test_imagenet_validation(tmp_path: Path, numbered: bool):
    (tmp_path / "names").write_text("n02119789 dingo\nn01440764 tench, Tinca tinca\nn01443537\n")
    (tmp_path / "labels").write_text("1\n2\n3\n2\n" if numbered else "\n".join(WNIDS[n] for n in (2, 0, 1, 0)))
    numbering = tmp_path / "names" if numbered else None
    write_imagenet_shards(val_tar(tmp_path), tmp_path / "shards", labels=tmp_path / "labels", numbering=numbering)
    assert ShardSet(tmp_path / "shards").classes == WNIDS
    labels = zip((1, 2, 3, 4), (2, 0, 1, 0), strict=True)
    assert all_samples(tmp_path / "shards") == [(image_bytes(n, format="JPEG"), label) for n, label in labels]


@pytest.mark.parametrize(
    ("labels", "numbering", "message"),
    [
        (None, None, "val.tar holds images without classes: give .* --labels FILE"),
        ("1\n1\n1\n1\n", None, "labels numbers the classes: give --numbering FILE"),
        ("1\n1\n1\n", None, "has 3 lines for 4 images"),
        ("1\n1\n0\n1\n", "n01440764", "line 3 of .* is 0, and the numbering has 1 lines"),
        ("cat\ncat\ncat\ncat\n", None, "line 1 of .* begins with 'cat'"),
    ],
)
def test_imagenet_labels_that_do_not_fit(tmp_path: Path, labels, numbering, message):
    paths = {}
    for name, text in (("labels", labels), ("numbering", numbering)):
        if text is not None:
            (tmp_path / name).write_text(text)
            paths[name] = tmp_path / name
    with pytest.raises((ConfigError, DataError), match=message):
        write_imagenet_shards(val_tar(tmp_path), tmp_path / "shards", **paths)
    assert not (tmp_path / "shards").exists()


def test_imagenet_odd_members(tmp_path: Path):
    link = tarfile.TarInfo("x.JPEG")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with pytest.raises(DataError, match=r"'x.JPEG' is a link"):
        write_imagenet_shards(write_tar(tmp_path / "a.tar", [(link, b"")]), tmp_path / "shards")
    with pytest.raises(ConfigError, match="leave out --labels"):
        write_imagenet_shards(train_tar(tmp_path), tmp_path / "shards", labels=tmp_path / "x")
