"""Class folders of a directory or a zip: the listing of their images, and their bytes."""

import os
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from framework.core.errors import DataError
from framework.data.images.decoding import IMAGE_SUFFIXES
from framework.data.shards.manifest import Skipped
from framework.data.shards.writer import Listing, SourceFile


def list_images(source: Path, *, folder: str = "") -> Listing:
    """Lists the images in the class folders of a directory or a zip archive.

    Args:
        source: a directory, or a zip archive.
        folder: folder inside `source` that holds the class folders.

    Raises:
        DataError: no source, no class folders, or a class without an image.
    """
    if not source.exists():
        raise DataError(f"no images at {source}: it does not exist", hint="give a folder of class folders, or a zip")
    prefix = PurePosixPath(folder).as_posix().strip("/") + "/" if folder.strip("./") else ""
    skipped: list[Skipped] = []
    try:
        entries = list(_walk(source, prefix, skipped) if source.is_dir() else _zip_entries(source, prefix))
    except OSError as error:
        raise DataError(f"cannot read {error.filename or source} ({error.strerror})", hint="check the path") from None
    if not entries and not skipped:
        where = f"the folder {folder!r} of {source}" if prefix else str(source)
        raise DataError(f"{where} is empty or does not exist", hint="give the folder that holds the class folders")
    return _arrange(entries, prefix, skipped, where=f"{source}/{prefix}".rstrip("/"))


@contextmanager
def open_source(source: Path) -> Iterator[Callable[[str], bytes]]:
    """A function that reads a file of the source by its path inside it; threads may share it."""
    if source.is_dir():
        yield lambda path: (source / path).read_bytes()
        return
    with _open_zip(source) as archive:
        yield archive.read


@contextmanager
def open_parts(source: Path) -> Iterator[Callable[[SourceFile], bytes]]:
    """A function that reads a sample of a source that is one file; threads may share it.

    Its errors are EOFError, where the file has become shorter, and OSError.
    """
    with source.open("rb") as stream:

        def read(file: SourceFile) -> bytes:
            data = os.pread(stream.fileno(), file.size, file.offset)
            if len(data) != file.size:
                raise EOFError(f"{source} ends after {len(data)} of {file.size} bytes")
            return data

        yield read


def _open_zip(source: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(source)
    except zipfile.BadZipFile as error:
        raise DataError(f"{source} is neither a folder nor a zip archive ({error})", hint="give one of them") from None


def _zip_entries(source: Path, prefix: str) -> Iterator[str]:
    """Paths under `prefix` in the archive; folders end with a slash."""
    with _open_zip(source) as archive:
        yield from (name for name in archive.namelist() if name.startswith(prefix) and name != prefix)


def _walk(source: Path, prefix: str, skipped: list[Skipped]) -> Iterator[str]:
    """Paths under `prefix` in the directory, links that leave it left out; folders end with a slash."""
    if not (source / prefix).is_dir():
        return
    root = source.resolve()
    with os.scandir(source / prefix) as entries:
        for entry in entries:
            path = prefix + entry.name
            if entry.is_symlink() and entry.is_dir():
                skipped.append(Skipped(source=path, reason="a link to a folder"))
            elif entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root):
                skipped.append(Skipped(source=path, reason="a link that leaves the source"))
            elif entry.is_dir():
                yield path + "/"
                yield from _walk(source, path + "/", skipped)
            else:
                yield path


def _arrange(entries: list[str], prefix: str, skipped: list[Skipped], *, where: str) -> Listing:
    """Sorts paths into classes.

    Raises:
        DataError: no class folders, or a class without an image.
    """
    images: dict[str, list[str]] = {}
    deeper: defaultdict[str, list[str]] = defaultdict(list)
    num_hidden = 0
    for path in entries:
        name, *rest = path.removeprefix(prefix).split("/")
        if any(part.startswith(".") for part in (name, *rest)) or name == "__MACOSX":
            num_hidden += not path.endswith("/")
        elif not rest:
            skipped.append(Skipped(source=path, reason="not in a class folder"))
        else:
            in_class = images.setdefault(name, [])
            if path.endswith("/"):
                continue
            if not path.lower().endswith(IMAGE_SUFFIXES):
                skipped.append(Skipped(source=path, reason="not an image file name"))
            else:
                (deeper[name] if len(rest) > 1 else in_class).append(path)

    classes = tuple(sorted(images))
    if not classes:
        raise DataError(f"{where} holds no class folders", hint="put the images of each class into a folder of its own")
    for name in classes:
        if images[name]:
            skipped += [Skipped(source=path, reason="in a sub-folder of its class") for path in deeper[name]]
        elif deeper[name]:
            hint = f"if the classes are the folders inside it, use --folder {prefix}{name}"
            raise DataError(f"class {name!r} in {where} holds no image itself, but its sub-folders do", hint=hint)
        else:
            raise DataError(f"class {name!r} in {where} holds no image", hint="add images to it or remove its folder")
    return Listing(
        classes=classes,
        files=tuple(
            SourceFile(path=path, label=label) for label, name in enumerate(classes) for path in sorted(images[name])
        ),
        skipped=tuple(sorted(skipped, key=lambda each: each.source)),
        num_hidden=num_hidden,
    )
