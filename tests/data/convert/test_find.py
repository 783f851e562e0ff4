"""Images and their classes are found in every kind of container, and what is wrong or left out is named."""

import unicodedata
from pathlib import Path

import pytest

from framework.core.errors import ConfigError, DataError
from framework.data.convert.containers import open_container
from framework.data.convert.find import FindOptions, find_images
from framework.data.convert.label_file import LabelColumns
from framework.data.shards.writer import Listing
from framework.testing.containers import CONTAINER_KINDS, ContainerKind, make_container


def listed(source: Path, options: FindOptions = FindOptions()) -> Listing:
    with open_container(source) as container:
        contents = container.contents(folder=options.folder, follow_links=options.follow_links)
        return find_images(contents, options, where=str(source))


def make(root: Path, paths: list[str], kind: ContainerKind = "folder", **options: str) -> Path:
    return make_container(root, {path: path.encode() for path in paths}, kind, **options)


def labels_of(listing: Listing) -> dict[str, int | None]:
    return {file.path: file.label for file in listing.files}


def reasons(listing: Listing) -> dict[str, str]:
    return {each.source: each.reason for each in listing.skipped}


@pytest.fixture(params=CONTAINER_KINDS)
def kind(request: pytest.FixtureRequest) -> ContainerKind:
    return request.param


def test_the_first_folder_is_the_class_however_deep_an_image_lies(tmp_path: Path, kind: ContainerKind):
    paths = ["b/2.JPEG", "b/10.png", "a/x.webp", "a/.DS_Store", ".git/x.png", "a/deep/er/y.png", "readme.md", "b/z.txt"]
    source = make(tmp_path, [*paths, "0.png", "__MACOSX/a/x.png"], kind)
    listing = listed(source)
    assert listing.classes == ("a", "b")
    found = labels_of(listing)
    assert found == {"a/deep/er/y.png": 0, "a/x.webp": 0, "b/10.png": 1, "b/2.JPEG": 1}
    assert kind == "tar.gz" or list(found) == sorted(found)
    assert reasons(listing) == {
        "0.png": "not in a class folder",
        "b/z.txt": "not an image file name",
        "readme.md": "not an image file name",
    }
    assert [each.source for each in listing.hidden] == [".git/x.png", "__MACOSX/a/x.png", "a/.DS_Store"]
    with open_container(source) as container:
        assert [container.read(file) for file in listing.files] == [path.encode() for path in found]


@pytest.mark.parametrize("folder", ["train", "train/", "./train", "/train"])
def test_folder_inside(tmp_path: Path, kind: ContainerKind, folder: str):
    source = make(tmp_path, ["train/a/1.png", "test/a/2.png", "trainer/a/3.png"], kind)
    assert labels_of(listed(source, FindOptions(folder=folder))) == {"train/a/1.png": 0}


@pytest.mark.parametrize("archive", ["zip", "tar", "tar.gz"])
def test_names_with_a_dot_before_them(tmp_path: Path, archive: ContainerKind):
    """As `zip -r x.zip ./*` in some programs, and `tar cf x.tar .`, write them: their class vanished without a word."""
    listing = listed(make(tmp_path, ["cat/1.png", "dog/1.png"], archive, prefix="./"))
    assert listing.classes == ("cat", "dog")
    assert labels_of(listing) == {"cat/1.png": 0, "dog/1.png": 1}
    assert (listing.skipped, listing.hidden) == ((), ())


@pytest.mark.parametrize("suffix", ["avif", "jfif", "jp2", "tga", "qoi", "pbm", "ico", "JPE", "dds", "j2k", "psd"])
def test_every_format_of_pillow_is_an_image(tmp_path: Path, suffix: str):
    listing = listed(make(tmp_path, [f"a/1.{suffix}", "b/1.png"]))
    assert labels_of(listing) == {f"a/1.{suffix}": 0, "b/1.png": 1}


@pytest.mark.parametrize(
    ("paths", "folder", "message"),
    [
        (["train/a/1.png", "train/b/1.png"], "", "class 'train' .* sub-folders do: .* use --folder train; .*--uncond"),
        (["train/a/1.png", "val/a/1.png"], "", "class 'train' .* sub-folders do: .* use --folder train$"),
        (["x/train/a/1.png"], "x", "class 'train' .* sub-folders do: .* use --folder x/train;"),
        (["a/1.png", "b/"], "", "class 'b' in .* holds no image: it is empty: add images"),
        (
            ["a/1.png", *(f"b/{n}.txt" for n in range(5)), "b/.1.png"],
            "",
            r"class 'b' in .* holds no image: 6 files cannot be used: "
            r"5 not an image file name \(b/0.txt, b/1.txt, b/2.txt, ...\); 1 hidden: .* \(b/.1.png\)",
        ),
        (["1.png", "2.png"], "", "holds no class folders, but 2 images such as 1.png: use --unconditional .*--labels"),
        (["1.txt"], "", r"holds no class folders: 1 files cannot be used: 1 not an image file name \(1.txt\)"),
        (["n01440764.tar"], "", "holds no class folders.*: for ImageNet.*, use framework shards imagenet"),
        (["a/1.png"], "train", "train is empty or does not exist"),
        ([], "", "is empty or does not exist"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, kind: ContainerKind, paths: list[str], folder: str, message: str):
    if kind == "tar" and not paths:
        pytest.skip("an empty tar has no header to be known by")
    with pytest.raises(DataError, match=message):
        listed(make(tmp_path, paths, kind), FindOptions(folder=folder))


def test_classes_of_nothing_but_sub_folders(tmp_path: Path):
    listing = listed(make(tmp_path, ["cats/tabby/1.png", "cats/persian/1.png", "dogs/pug/1.png"]))
    assert listing.classes == ("cats", "dogs")
    assert labels_of(listing) == {"cats/persian/1.png": 0, "cats/tabby/1.png": 0, "dogs/pug/1.png": 1}


def test_given_classes_keep_their_numbers(tmp_path: Path, kind: ContainerKind):
    source = make(tmp_path, ["b/1.png", "c/1.png"], kind)
    listing = listed(source, FindOptions(classes=("c", "a", "b")))
    assert (listing.classes, labels_of(listing)) == (("c", "a", "b"), {"c/1.png": 0, "b/1.png": 2})
    with pytest.raises(DataError, match=r"class 'c' in .* is none of the 2 classes"):
        listed(source, FindOptions(classes=("a", "b")))


def test_images_without_classes(tmp_path: Path, kind: ContainerKind):
    source = make(tmp_path, ["1.png", "deep/2.jpg", "notes.txt"], kind)
    listing = listed(source, FindOptions(unconditional=True))
    assert (listing.classes, listing.unconditional) == (("all",), True)
    assert labels_of(listing) == {"1.png": 0, "deep/2.jpg": 0}
    assert reasons(listing) == {"notes.txt": "not an image file name"}
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=r"holds no image: 1 files cannot be used: .*notes.txt"):
        listed(make(tmp_path / "other", ["notes.txt"], kind), FindOptions(unconditional=True))


def labelled(tmp_path: Path, text: str, kind: ContainerKind = "folder", **options) -> Listing:
    paths = ["train/1.png", "train/deep/2.jpg", "train/3.png", "train/4", "train/x.txt", "test/1.png"]
    source = make(tmp_path, paths, kind)
    name = "labels.jsonl" if text.startswith("{") else "labels.csv"
    (tmp_path / name).write_text(text)
    return listed(source, FindOptions(folder="train", labels=tmp_path / name, **options))


@pytest.mark.parametrize(
    "text",
    [
        "file_name,label\n1.png,dog\ndeep/2.jpg,cat\n4,dog\n",
        "\ufefflabel;other;file\r\ndog;;./1.png\r\ncat;7;train/deep/2.jpg\r\n\r\ndog;;4\r\n",
        'id\tbreed\n1\tdog\ndeep/2\tcat\n4\t"dog"\n',
        '{"file_name": "1.png", "label": "dog"}\n\n{"file_name": "deep/2.jpg", "label": "cat"}\n'
        '{"file_name": "4", "label": "dog", "more": [1]}\n',
    ],
    ids=["csv", "semicolons", "without suffixes", "json lines"],
)
def test_labels_of_a_file(tmp_path: Path, kind: ContainerKind, text: str):
    listing = labelled(tmp_path, text, kind)
    assert listing.classes == ("cat", "dog")
    assert labels_of(listing) == {"train/deep/2.jpg": 0, "train/1.png": 1, "train/4": 1}
    name = "labels.jsonl" if text.startswith("{") else "labels.csv"
    assert reasons(listing) == {"train/3.png": f"not in {name}", "train/x.txt": "not an image file name"}


def test_labels_that_are_numbers_keep_them(tmp_path: Path):
    listing = labelled(tmp_path, "path,class\n1.png,2\n3.png,0\n")
    assert (listing.classes, listing.empty_classes) == (("0", "1", "2"), True)
    assert labels_of(listing) == {"train/3.png": 0, "train/1.png": 2}


def test_labels_that_are_whole_numbers_with_a_point(tmp_path: Path):
    """As pandas writes a column of numbers with an empty cell; classes were '0.0', '1.0', '10.0', '2.0'."""
    listing = labelled(tmp_path, "path,class\n1.png,2.0\n3.png,0.0\n4,\n")
    assert (listing.classes, labels_of(listing)) == (("0", "1", "2"), {"train/3.png": 0, "train/1.png": 2})


@pytest.mark.parametrize("decomposed", ["file", "list"])
def test_accents_are_the_same_however_they_are_written(tmp_path: Path, decomposed: str):
    names = [unicodedata.normalize(form, "caf\u00e9.png") for form in ("NFC", "NFD")]
    on_disk, in_list = reversed(names) if decomposed == "file" else names
    source = make(tmp_path, [f"train/{on_disk}", "train/1.png"])
    (tmp_path / "labels.csv").write_text(f"path,class\n{in_list},a\n{in_list[:-4]},a\n", encoding="utf-8")
    listing = listed(source, FindOptions(folder="train", labels=tmp_path / "labels.csv"))
    assert labels_of(listing) == {f"train/{on_disk}": 0}


def test_paths_of_windows(tmp_path: Path):
    assert labels_of(labelled(tmp_path, "path,class\ndeep\\2.jpg,a\n")) == {"train/deep/2.jpg": 0}


def test_a_name_of_several_files_is_said_to_be(tmp_path: Path):
    source = make(tmp_path, ["1.png", "1.jpg", "2.png"])
    (tmp_path / "labels.csv").write_text("path,class\n1,a\n2,a\n")
    listing = listed(source, FindOptions(labels=tmp_path / "labels.csv"))
    assert (
        reasons(listing)["1"] == "labels.csv names it (line 2), but several files have this name before their suffixes"
    )


def test_labels_with_given_classes(tmp_path: Path):
    listing = labelled(tmp_path, "path,class\n1.png,2\n3.png,ant\n", classes=("ant", "bee", "cat"))
    assert labels_of(listing) == {"train/3.png": 0, "train/1.png": 2}


def test_lines_without_a_file_or_a_label_are_left_out(tmp_path: Path):
    listing = labelled(tmp_path, "path,class\n1.png,a\n9.png,b\n3.png,\n1.png,a\n")
    assert labels_of(listing) == {"train/1.png": 0}
    assert reasons(listing)["9.png"] == "labels.csv names it (line 3), but it is not there"
    assert reasons(listing)["train/3.png"] == "without a label in labels.csv (line 4)"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("path,class\n1.png,a\n1.png,b\n", {}, "train/1.png is 'a' in line 2 of .*labels.csv and 'b' in line 3"),
        ("path,class\n7.png,a\n", {}, "none of the 1 files that .* names is in .*train"),
        ("path,class\n1.png,d\n", {"classes": ("a",)}, "label 'd' in .* is none of the 1 classes"),
        ("path,class\n1.png,99999999\n", {}, "the largest label in .* is 99999999, of 1 different"),
        ("path,class\n1.png,0.25\n3.png,1\n", {}, "label '0.25' in .* is a number, but not a whole one"),
        ("path,class\n1.png,nan\n3.png,1\n", {}, r"are names \('nan'\) and some numbers \(1\): .* --classes"),
        ("a,b\n1.png,a\n", {}, r"no column of .* is called like a path \(it has a, b\): name it with --path_column"),
        ("path,b\n1.png,a\n", {}, "no column of .* is called like a label .*--label_column"),
        ("path,b\n1.png,a\n", {"columns": LabelColumns(label="c")}, "no column 'c': use one of path, b"),
    ],
)
def test_labels_that_do_not_fit(tmp_path: Path, text: str, options: dict, message: str):
    with pytest.raises((DataError, ConfigError), match=message):
        labelled(tmp_path, text, **options)


def test_a_file_larger_than_any_image_is_left_out(tmp_path: Path):
    source = make(tmp_path, ["a/1.png", "b/1.png"])
    with (source / "b" / "2.png").open("wb") as stream:
        stream.truncate(3 << 30)
    assert reasons(listed(source)) == {"b/2.png": "3,221,225,472 bytes, more than 268,435,456"}


def test_options_that_contradict_each_other():
    with pytest.raises(ConfigError, match="unconditional data have no classes"):
        FindOptions(unconditional=True, classes=("a",))
    with pytest.raises(ConfigError, match="columns are those of a file of labels"):
        FindOptions(columns=LabelColumns(path="x"))
    with pytest.raises(ConfigError, match="2 classes have the same name"):
        FindOptions(classes=("a", "a"))
