"""Every source becomes shards through the same core: nothing lost unseen, the same bytes each time."""

import builtins
import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from framework.core.errors import ConfigError, DataError
from framework.data.convert.hf import write_hf_shards
from framework.data.convert.imagenet import write_imagenet_shards
from framework.data.convert.jsonl import write_jsonl_shards
from framework.data.shards.check import check_shards
from framework.data.shards.reader import ShardSet
from framework.data.shards.writer import WriteOptions
from framework.testing.tars import image_bytes, write_tar

WNIDS = ("n01440764", "n01443537", "n02119789")


def all_samples(path: Path) -> list[tuple[bytes, int]]:
    shards = ShardSet(path)
    return [shards.read(number) for number in range(len(shards))]


def digests(dest: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(dest.iterdir())}


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
    with pytest.raises(DataError, match=r"strict: 4 files cannot be used: line 5 \(not JSON"):
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


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning")
class TestHuggingFace:
    @pytest.fixture
    def images(self) -> list[Image.Image]:
        return [Image.fromarray(np.full((8, 8, 3), 10 * number, np.uint8)) for number in range(4)]

    def save(self, path: Path, columns: dict, **features) -> Path:
        datasets = pytest.importorskip("datasets")
        data = datasets.Dataset.from_dict(columns)
        for name, feature in features.items():
            data = data.cast_column(name, feature)
        data.save_to_disk(str(path))
        return path

    def test_images(self, tmp_path: Path, images):
        datasets = pytest.importorskip("datasets")
        label = datasets.ClassLabel(names=["ant", "bee", "cat"])
        source = self.save(tmp_path / "hf", {"img": images, "y": [1, 0, -1, 1]}, img=datasets.Image(), y=label)
        manifest = write_hf_shards(source, tmp_path / "shards")
        assert (manifest.classes, manifest.class_counts) == (("ant", "bee", "cat"), (1, 2, 0))
        assert [(each.source, each.reason) for each in manifest.skipped] == [("row 2", "it has no label")]
        assert [label for _, label in all_samples(tmp_path / "shards")] == [1, 0, 1]
        assert ShardSet(tmp_path / "shards").member(0) == "000000000.png"
        assert check_shards(tmp_path / "shards") == []
        write_hf_shards(source, tmp_path / "again", options=WriteOptions(workers=1))
        assert digests(tmp_path / "again") == digests(tmp_path / "shards")

    def test_names_as_labels(self, tmp_path: Path, images):
        datasets = pytest.importorskip("datasets")
        source = self.save(tmp_path / "hf", {"img": images, "y": ["b", "a", None, "b"]}, img=datasets.Image())
        with pytest.raises(ConfigError, match="the label columns are none: name the column with --label"):
            write_hf_shards(source, tmp_path / "shards")
        manifest = write_hf_shards(source, tmp_path / "shards", label="y")
        assert (manifest.classes, manifest.class_counts) == (("a", "b"), (1, 2))

    def test_rows(self, tmp_path: Path):
        source = self.save(tmp_path / "hf", {"task": ["a", "b"], "steps": [[1, 2], []]})
        write_hf_shards(source, tmp_path / "shards")
        found = [json.loads(data) for data, _ in all_samples(tmp_path / "shards")]
        assert found == [{"task": "a", "steps": [1, 2]}, {"task": "b", "steps": []}]

    def test_splits(self, tmp_path: Path):
        datasets = pytest.importorskip("datasets")
        data = datasets.Dataset.from_dict({"x": [1]})
        datasets.DatasetDict({"train": data, "test": data}).save_to_disk(str(tmp_path / "hf"))
        with pytest.raises(ConfigError, match="holds the splits train, test: choose one of them with --split"):
            write_hf_shards(tmp_path / "hf", tmp_path / "shards")
        assert write_hf_shards(tmp_path / "hf", tmp_path / "shards", split="test").num_samples == 1

    def test_no_dataset(self, tmp_path: Path):
        pytest.importorskip("datasets")
        with pytest.raises(DataError, match="missing: it is no folder"):
            write_hf_shards(tmp_path / "missing", tmp_path / "shards")
        with pytest.raises(DataError, match="cannot be read"):
            write_hf_shards(tmp_path, tmp_path / "shards")


def test_package_that_is_missing(tmp_path: Path, monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "datasets":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ConfigError, match=r'`datasets` is not installed: install it with: pip install "framework\[hf\]"'
    ):
        write_hf_shards(tmp_path, tmp_path / "shards")
