"""Class folders are found in directories and zips alike, and what is wrong with them is named."""

import zipfile
from pathlib import Path

import pytest
from framework.data.convert.source_files import list_images, open_source

from framework.core.errors import DataError
from framework.data.shards.writer import Listing, SourceFile


def make(root: Path, paths: list[str], *, archive: bool) -> Path:
    """A source with empty files and, where the path ends with a slash, folders."""
    if archive:
        with zipfile.ZipFile(root / "source.zip", "w") as target:
            for path in paths:
                target.writestr(path, path)
        return root / "source.zip"
    (root / "source").mkdir()
    for path in paths:
        (root / "source" / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            (root / "source" / path).mkdir()
        else:
            (root / "source" / path).write_text(path)
    return root / "source"


@pytest.fixture(params=[False, True], ids=["folder", "zip"])
def archive(request: pytest.FixtureRequest) -> bool:
    return request.param


def test_listing_is_sorted(tmp_path: Path, archive: bool):
    paths = ["b/2.JPEG", "b/10.png", "a/x.webp", "a/.DS_Store", ".git/x.png", "a/deep/y.png", "readme.md", "b/z.txt"]
    source = make(tmp_path, paths, archive=archive)
    listing = list_images(source)
    assert isinstance(listing, Listing)
    assert listing.classes == ("a", "b")
    assert listing.files == (
        SourceFile(path="a/x.webp", label=0),
        SourceFile(path="b/10.png", label=1),
        SourceFile(path="b/2.JPEG", label=1),
    )
    assert {each.source: each.reason for each in listing.skipped} == {
        "a/deep/y.png": "in a sub-folder of its class",
        "b/z.txt": "not an image file name",
        "readme.md": "not in a class folder",
    }
    assert listing.num_hidden == 2
    with open_source(source) as read:
        assert read("b/2.JPEG") == b"b/2.JPEG"


@pytest.mark.parametrize("folder", ["train", "train/", "./train", "/train"])
def test_folder_inside(tmp_path: Path, archive: bool, folder: str):
    source = make(tmp_path, ["train/a/1.png", "test/a/2.png", "trainer/a/3.png"], archive=archive)
    assert list_images(source, folder=folder).files == (SourceFile(path="train/a/1.png", label=0),)


@pytest.mark.parametrize(
    ("paths", "folder", "message"),
    [
        (["train/a/1.png", "train/b/1.png"], "", "class 'train' .* sub-folders do: .* use --folder train$"),
        (["x/train/a/1.png"], "x", "class 'train' .* sub-folders do: .* use --folder x/train$"),
        (["a/1.png", "b/"], "", "class 'b' in .* holds no image"),
        (["a/1.png", "b/text.txt"], "", "class 'b' in .* holds no image"),
        (["1.png", "2.png"], "", "holds no class folders"),
        (["a/1.png"], "train", "the folder 'train' of .* is empty or does not exist"),
        ([], "", "is empty or does not exist"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, archive: bool, paths: list[str], folder: str, message: str):
    with pytest.raises(DataError, match=message):
        list_images(make(tmp_path, paths, archive=archive), folder=folder)


def test_missing_source(tmp_path: Path):
    with pytest.raises(DataError, match=r"no images at .*missing: it does not exist"):
        list_images(tmp_path / "missing")


def test_neither_folder_nor_zip(tmp_path: Path):
    (tmp_path / "images.tar").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"images.tar is neither a folder nor a zip archive"):
        list_images(tmp_path / "images.tar")


def test_linked_folder_is_not_followed(tmp_path: Path):
    source = make(tmp_path, ["a/1.png"], archive=False)
    (source / "b").symlink_to(source / "a")
    (source / "a" / "2.png").symlink_to(source / "a" / "1.png")
    listing = list_images(source)
    assert [file.path for file in listing.files] == ["a/1.png", "a/2.png"]
    assert [(each.source, each.reason) for each in listing.skipped] == [("b", "a link to a folder")]
