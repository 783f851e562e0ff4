"""Shards that others wrote become a shard set, or the shard and the member at fault are named."""

import gc
import io
import json
import os
import tarfile
from pathlib import Path

import pytest
import webdataset

from framework.core.errors import ConfigError, DataError
from framework.data.convert.index import IndexOptions, index_shards
from framework.data.shards.check import check_shards
from framework.data.shards.reader import ShardSet
from framework.testing.images import make_image_shards
from framework.testing.tars import image_bytes, write_tar

Members = list[tuple[str, bytes]]


def image_members(first: int, count: int) -> Members:
    return [
        member
        for key in range(first, first + count)
        for member in ((f"d/{key:04d}.png", image_bytes(key)), (f"d/{key:04d}.cls", b"%d\n" % (key % 3)))
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # WebDataset leaves its last shard open.
def test_shards_that_webdataset_wrote(tmp_path: Path):
    for shard in range(2):
        with webdataset.TarWriter(str(tmp_path / f"train-{shard}.tar")) as writer:
            for key in range(3):
                image = image_bytes(40 * shard + key, format="JPEG" if key else "PNG")
                suffix = "JPEG" if key else "png"
                writer.write(
                    {"__key__": f"sample{shard}.{key}".replace(".", "_"), suffix: image, "cls": key, "txt": "x"}
                )
    manifest = index_shards(tmp_path)
    shards = ShardSet(tmp_path)
    urls = [path.as_posix() for path in sorted(tmp_path.glob("*.tar"))]
    reader = webdataset.WebDataset(urls, shardshuffle=False)
    expected = [(each.get("png") or each["jpeg"], int(each["cls"])) for each in reader]
    del reader
    gc.collect()
    assert [shards.read(number) for number in range(len(shards))] == expected
    assert shards.classes == ("0", "1", "2")
    assert manifest.class_counts == (2, 2, 2)
    assert (manifest.image_sizes, manifest.image_modes) == ({"8x8": 6}, {"RGB": 6})
    assert [(each.source, each.reason) for each in manifest.skipped] == [
        ("*.txt", "6 members of a kind that is not read")
    ]
    assert shards.member(4) == "sample1_1.JPEG"
    assert check_shards(tmp_path) == []


def test_our_own_shards(tmp_path: Path):
    make_image_shards(tmp_path, per_class=3, samples_per_shard=2)
    before = ShardSet(tmp_path / "shards")
    expected = [before.read(number) for number in range(6)]
    (tmp_path / "shards" / "manifest.json").unlink()
    index_shards(tmp_path / "shards", IndexOptions(classes=("cat", "dog")))
    after = ShardSet(tmp_path / "shards")
    assert after.classes == before.classes
    assert [after.read(number) for number in range(6)] == expected


@pytest.mark.parametrize(
    ("labels", "options", "classes", "numbers"),
    [
        (['{"label": 1}', '{"label": 0}'], {}, ("0", "1"), [1, 0]),
        (['{"label": "dog"}', '{"label": "cat"}'], {}, ("cat", "dog"), [1, 0]),
        (['{"label": 1}', '{"label": 0}'], {"classes": ("a", "b")}, ("a", "b"), [1, 0]),
        (['{"label": "b"}', '{"label": "a"}'], {"classes": ("a", "b", "c")}, ("a", "b", "c"), [1, 0]),
        (['{"y": 2}', '{"y": 0}'], {"label_key": "y"}, ("0", "1", "2"), [2, 0]),
    ],
)
def test_labels_in_json(tmp_path: Path, labels, options, classes, numbers):
    members = [
        member
        for key, label in enumerate(labels)
        for member in ((f"{key}.webp", image_bytes(key, format="WEBP")), (f"{key}.json", label.encode()))
    ]
    write_tar(tmp_path / "a.tar", members)
    index_shards(tmp_path, IndexOptions(**options))
    shards = ShardSet(tmp_path)
    assert shards.classes == classes
    assert [shards.read(number)[1] for number in range(len(shards))] == numbers
    assert check_shards(tmp_path) == []


def test_json_alone_is_episodes(tmp_path: Path):
    documents = [json.dumps({"task": number}).encode() for number in range(5)]
    write_tar(tmp_path / "a.tar", [(f"{number}.json", data) for number, data in enumerate(documents[:3])])
    write_tar(tmp_path / "b.tar", [(f"{number}.json", data) for number, data in enumerate([*documents[3:], b"[1]"])])
    manifest = index_shards(tmp_path)
    assert (manifest.kind, manifest.classes, manifest.class_counts) == ("episodes", (), ())
    assert [(each.source, each.reason) for each in manifest.skipped] == [
        ("b.tar/2.json", "JSON, but not an object (list)")
    ]
    shards = ShardSet(tmp_path)
    assert [shards.read(number) for number in range(5)] == [(data, -1) for data in documents]
    assert check_shards(tmp_path) == []


def test_notes_beside_the_shards_are_left_alone(tmp_path: Path):
    write_tar(tmp_path / "a.tar", image_members(0, 3))
    (tmp_path / "sizes.json").write_text("{}")
    index_shards(tmp_path)
    assert check_shards(tmp_path) == []
    assert (tmp_path / "sizes.json").read_text() == "{}"
    write_tar(tmp_path / "b.tar", image_members(0, 3))
    assert check_shards(tmp_path) == ["b.tar: not in the manifest"]


def test_unreadable_images_are_listed(tmp_path: Path):
    write_tar(tmp_path / "a.tar", [*image_members(0, 3), ("bad.png", b"nothing"), ("bad.cls", b"1")])
    with pytest.raises(DataError, match=r"strict: 1 files cannot be used: 1 not an image .* \(a.tar/bad.png\)"):
        index_shards(tmp_path, IndexOptions(strict=True))
    manifest = index_shards(tmp_path)
    assert [each.source for each in manifest.skipped] == ["a.tar/bad.png"]
    assert len(ShardSet(tmp_path)) == 3
    assert check_shards(tmp_path) == []


def test_finished_index_is_kept_unless_overwritten(tmp_path: Path):
    write_tar(tmp_path / "a.tar", image_members(0, 3))
    first = index_shards(tmp_path)
    with pytest.raises(DataError, match=r"already has a manifest.json: use --overwrite"):
        index_shards(tmp_path)
    assert index_shards(tmp_path, IndexOptions(overwrite=True, workers=1)) == first


def link(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


FAULTS = {
    "link": ([(link("x.png"), b"")], r"b.tar cannot be used: member 'x.png' is a link"),
    "outside": ([("../x.png", b"")], r"b.tar cannot be used: member '../x.png' points outside"),
    "absolute": ([("/x.png", b"")], r"b.tar cannot be used: member '/x.png' points outside"),
    "large": ([("x.png", bytes(9000))], r"member 'x.png' has 9,000 bytes, more than 5,000.*--max_member_mib"),
    "same name": ([("x.png", b""), ("x.png", b"")], "two members are named 'x.png'"),
    "same key": ([("x.png", b""), ("x.jpg", b"")], "two members for key 'x': 'x.png' and 'x.jpg'"),
    "no label": (
        [("x.png", image_bytes(1))],
        r"sample 'x' lacks its label \(a member x.cls, x.json or x.txt\).*--uncond",
    ),
    "no image": ([*image_members(0, 1), ("x.cls", b"1")], "sample 'x' has a label but no image"),
    "json alone among images": ([*image_members(0, 1), ("x.json", b"{}")], "sample 'x' has no image, but others"),
    "json alone": ([("x.json", b"{}")], "a.tar holds images and b.tar JSON alone"),
    "negative": ([("x.png", b""), ("x.cls", b"-1")], "member 'x.cls' has the label '-1'"),
    "name and number": (
        [("x.png", b""), ("x.cls", b"dog")],
        r"some labels in the shards are names \('dog'\) and some numbers",
    ),
    "huge label": ([("x.png", b""), ("x.cls", b"99999999999")], "the largest label in the shards is 99999999999"),
    "label of a kilobyte": ([("x.png", b""), ("x.cls", b"1" * 4097)], "'x.cls' has 4,097 bytes, too many for a label"),
    "no json": ([("x.png", b""), ("x.json", b"{")], "b.tar cannot be used: member 'x.json' is not JSON"),
    "json without label": (
        [("x.png", b""), ("x.json", b'{"a": 1}')],
        r"no label under the key 'label' \(a\): name its key with --label_key",
    ),
    "true": ([("x.png", b""), ("x.json", b'{"label": true}')], "'x.json' has the label true; labels are numbers or"),
    "fraction": ([("x.png", b""), ("x.json", b'{"label": 0.5}')], "'x.json' has the label 0.5; labels are numbers or"),
    "fraction as text": ([("x.png", b""), ("x.cls", b"0.5")], "label '0.5' in the shards is a number, but not a whole"),
    "label of too many digits": ([("x.png", b""), ("x.json", b'{"label": "%s"}' % (b"9" * 4900))], "are names .'9999"),
    "not text": ([("x.png", b""), ("x.cls", b"\xff")], "b.tar cannot be used: member 'x.cls' is not UTF-8"),
    "half a character": ([("x.png", b""), ("x.json", b'{"label": "\\ud83d"}')], r"'x.json' has the label '\\ud83d'"),
    "two lines": ([("x.png", b""), ("x.txt", b"a dog\non a log")], "'x.txt' has the label"),
    "empty text": ([("x.png", b""), ("x.txt", b"\n")], "'x.txt' has the label ''"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_named(tmp_path: Path, name: str):
    members, message = FAULTS[name]
    write_tar(tmp_path / "a.tar", image_members(0, 3))
    write_tar(tmp_path / "b.tar", members)
    with pytest.raises(DataError, match=message):
        index_shards(tmp_path, IndexOptions(max_member_bytes=5000))
    assert not (tmp_path / "manifest.json").exists()


def test_whole_numbers_with_a_point_are_numbers(tmp_path: Path):
    members = [("a.png", image_bytes(1)), ("a.cls", b"2.0"), ("b.png", image_bytes(2)), ("b.json", b'{"label": 1.0}')]
    write_tar(tmp_path / "a.tar", members)
    manifest = index_shards(tmp_path)
    assert (manifest.classes, manifest.class_counts) == (("0", "1", "2"), (0, 1, 1))
    assert check_shards(tmp_path) == []


@pytest.mark.parametrize("size", [0, 100, 3 * 512, 6 * 512, 12 * 512])
def test_truncated_shard(tmp_path: Path, size: int):
    path = write_tar(tmp_path / "a.tar", image_members(0, 3))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=r"a.tar cannot be used: .*(fetch or make the shard again)"):
        index_shards(tmp_path)


def test_no_shards(tmp_path: Path):
    with pytest.raises(DataError, match="missing: it is not a folder"):
        index_shards(tmp_path / "missing")
    with pytest.raises(DataError, match=r"holds no .tar files: give"):
        index_shards(tmp_path)
    (tmp_path / "a.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds no .tar files: unpack a.tar.gz"):
        index_shards(tmp_path)
    write_tar(tmp_path / "a.tar", [("readme.txt", b"")])
    with pytest.raises(DataError, match="no sample in the 1 shards"):
        index_shards(tmp_path)
    write_tar(tmp_path / "a.tar", [("a.png", b""), ("a.cls", b"0")])
    with pytest.raises(DataError, match=r"no sample is readable: 1 files .* an empty file \(a.tar/a.png\)"):
        index_shards(tmp_path)


def test_classes_that_do_not_fit(tmp_path: Path):
    write_tar(tmp_path / "a.tar", image_members(0, 3))
    with pytest.raises(DataError, match="label '2' in the shards is none of the 2 classes"):
        index_shards(tmp_path, IndexOptions(classes=("a", "b")))
    with pytest.raises(ConfigError, match="class 0 is called '1'"):
        IndexOptions(classes=("1", "0"))
    with pytest.raises(ConfigError, match="the same name"):
        IndexOptions(classes=("a", "a"))
    with pytest.raises(ConfigError, match="max_member_bytes is 0"):
        IndexOptions(max_member_bytes=0)


def test_index_that_does_not_belong_to_its_shards(tmp_path: Path):
    """The manifest and the index are of one set, a shard of another: of the same size, so that only bytes tell."""
    write_tar(tmp_path / "a.tar", image_members(0, 3))
    index_shards(tmp_path)
    write_tar(tmp_path / "a.tar", [("other.png", image_bytes(9, size=9)), ("other.cls", b"0")])
    problems = check_shards(tmp_path)
    assert problems[0] == "a.tar: its sha256 is not the manifest's"
    assert "a.tar: the index does not describe it" in problems


def test_member_after_a_wrong_offset(tmp_path: Path):
    write_tar(tmp_path / "a.tar", image_members(0, 3))
    index_shards(tmp_path)
    shards = ShardSet(tmp_path)
    data = bytearray((tmp_path / "a.tar").read_bytes())
    data[:512] = b"x" * 512
    (tmp_path / "a.tar").write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"sample 0 .* follows no tar header"):
        shards.member(0)
    assert io.BytesIO(shards.read(1)[0]).read(4) == b"\x89PNG"


def labels_of(folder: Path) -> list[str]:
    shards = ShardSet(folder)
    return [shards.classes[shards.read(number)[1]] for number in range(len(shards))]


def test_labels_in_text_members(tmp_path: Path):
    """A `cls` member counts for more, and a JSON member without the key for less."""
    members = [(f"{n}.jpg", image_bytes(n, format="JPEG")) for n in range(4)]
    members += [
        ("0.txt", b"dog\n"),
        ("1.txt", b"\xef\xbb\xbfcat"),
        ("1.json", b'{"width": 8}'),
        ("2.txt", b"a caption"),
    ]
    members += [("2.cls", b"dog"), ("3.json", b'{"label": "cat"}')]
    write_tar(tmp_path / "a.tar", members)
    manifest = index_shards(tmp_path)
    assert labels_of(tmp_path) == ["dog", "cat", "dog", "cat"]
    assert manifest.left_out == {"N members of a kind that is not read": 1}
    assert check_shards(tmp_path) == []


def test_captions_are_no_classes(tmp_path: Path):
    members = [(f"{n}.{suffix}", b"") for n in range(101) for suffix in ("png",)]
    members += [(f"{n}.txt", f"caption {n}".encode()) for n in range(101)]
    write_tar(tmp_path / "a.tar", members)
    message = r"txt members of 101 images hold 101 different texts: captions, not classes: use --unconditional"
    with pytest.raises(DataError, match=message):
        index_shards(tmp_path)


def test_images_without_classes(tmp_path: Path):
    members = [("0.png", image_bytes(0)), ("0.txt", b"a caption"), ("1.jpg", image_bytes(1, format="JPEG"))]
    write_tar(tmp_path / "a.tar", [*members, ("1.cls", b"7"), ("2.json", b"{}")])
    manifest = index_shards(tmp_path, IndexOptions(unconditional=True))
    assert (manifest.classes, manifest.class_counts, manifest.unconditional) == (("all",), (2,), True)
    assert labels_of(tmp_path) == ["all", "all"]
    assert [each.source for each in manifest.skipped] == ["*.cls", "*.json", "*.txt"]
    assert check_shards(tmp_path) == []
    with pytest.raises(ConfigError, match="unconditional data have no classes"):
        IndexOptions(unconditional=True, classes=("a",))


@pytest.mark.parametrize("suffix", ["avif", "jfif", "jp2", "tga"])
def test_any_format_is_an_image(tmp_path: Path, suffix: str):
    format = {"avif": "AVIF", "jfif": "JPEG", "jp2": "JPEG2000", "tga": "TGA"}[suffix]
    write_tar(tmp_path / "a.tar", [(f"a.{suffix.upper()}", image_bytes(1, format=format)), ("a.cls", b"0")])
    assert index_shards(tmp_path).num_samples == 1
    assert check_shards(tmp_path) == []


def test_keys_with_dots(tmp_path: Path):
    """WebDataset takes `v2.png` for the kind of the member: the sample is lost, and nothing said so."""
    dotted = [("photo.v2.png", image_bytes(1)), ("photo.v2.cls", b"0"), ("photo.v3.png", image_bytes(2))]
    write_tar(tmp_path / "a.tar", [*image_members(0, 2), *dotted])
    with pytest.raises(
        DataError, match=r"strict: 1 files .* 3 members with a dot in their key; WebDataset splits .*v2"
    ):
        index_shards(tmp_path, IndexOptions(strict=True))
    manifest = index_shards(tmp_path)
    assert manifest.num_samples == 2
    assert [(each.source, each.reason) for each in manifest.skipped] == [
        (
            "a.tar/photo.v2.png",
            "the first of 3 members with a dot in their key; WebDataset splits a name at its first dot, and takes the "
            "rest for the kind of the member",
        )
    ]
    assert check_shards(tmp_path) == []
    write_tar(tmp_path / "a.tar", dotted)
    message = r"no sample in the 1 shards .*: 3 members have a dot in their key, such as 'photo.v2.png'; WebDataset"
    with pytest.raises(DataError, match=message):
        index_shards(tmp_path, IndexOptions(overwrite=True))


def test_a_second_image_of_a_sample_is_no_key_with_a_dot(tmp_path: Path):
    write_tar(
        tmp_path / "a.tar", [*image_members(0, 2), ("d/0000.mask.png", image_bytes(9)), ("d/0000.depth.tiff", b"")]
    )
    manifest = index_shards(tmp_path, IndexOptions(strict=True))
    assert [each.source for each in manifest.skipped] == ["*.depth.tiff", "*.mask.png"]


def test_a_member_whose_name_is_not_utf_8(tmp_path: Path):
    name = os.fsdecode(b"caf\xe9")
    write_tar(tmp_path / "a.tar", [*image_members(0, 1), (f"{name}.png", b"broken"), (f"{name}.cls", b"0")])
    manifest = index_shards(tmp_path)
    assert [each.source for each in manifest.skipped] == [r"a.tar/caf\xe9.png"]
    assert check_shards(tmp_path) == []
