"""What a container of files holds, whatever it is: records, bounds, and the links and names of archives.

No member leaves its archive, and nothing larger than 256 MiB is read, whatever a header says.
"""

import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from framework.data.archives.names import inside, printable
from framework.data.archives.tar import MAX_MEMBER_BYTES
from framework.data.shards.manifest import Skipped
from framework.data.shards.writer import SourceFile

FOLLOW = "--follow_links follows it"
_MAX_LINKS = 40
"""Links behind one another, as Linux follows them."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What is in a container.

    Attributes:
        files: everything that can be read, whatever it is, by its path inside the container.
        folders: paths of the folders, those without a file among them.
        skipped: what cannot be read.
        identity: of the container as it is now; with the files' stamps, all that its bytes depend on.
        in_order: files must be read in the order of their offsets, which takes much longer otherwise.
    """

    files: Mapping[str, SourceFile]
    folders: frozenset[str]
    skipped: tuple[Skipped, ...]
    identity: str
    in_order: bool = False


def read_bounded(path: Path) -> bytes:
    """A file's bytes. Raises ValueError, with its size, for one that is too large; OSError."""
    with path.open("rb") as stream:
        data = stream.read(MAX_MEMBER_BYTES + 1)
    if len(data) > MAX_MEMBER_BYTES:
        raise ValueError(too_large(path.stat().st_size))
    return data


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


def identity_of(source: Path) -> str:
    """What changes when a source does, a file or a folder of a few. Raises OSError."""
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    facts = ((path.relative_to(source).as_posix(), path.stat()) for path in files)
    return "; ".join(f"{name}: {each.st_size} bytes of {each.st_mtime_ns}" for name, each in facts)


def too_large(size: int) -> str:
    """Why a file of so many bytes is not read."""
    return f"{size:,} bytes, more than {MAX_MEMBER_BYTES:,}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveEntry:
    """A file or a link in an archive.

    Attributes:
        name: as it is written there.
        file: it, or what a hard link stands for; None for what is not a file.
        target: of a link; None for a file.
        is_hard: the link is a second name of a file.
        problem: why it cannot be read; empty if it can.
    """

    name: str
    file: SourceFile | None = None
    target: str | None = None
    is_hard: bool = False
    problem: str = ""


def arrange_archive(
    entries: Iterable[ArchiveEntry],
    folders: Iterable[str],
    *,
    identity: str,
    folder: str,
    follow_links: bool,
    in_order: bool = False,
) -> Contents:
    """What is in an archive: later entries replace earlier ones of the same name, as when it is unpacked.

    Args:
        entries: files and links, in the order of the archive.
        folders: as they are written there.
        identity: of the archive.
        folder: the folder in it that counts.
        follow_links: symbolic links inside the archive count as what they point at.
        in_order: as of `Contents`.
    """
    skipped: list[Skipped] = []
    found: dict[str, ArchiveEntry] = {}
    for entry in entries:
        path = inside(entry.name)
        if path is None:
            skipped.append(Skipped(source=entry.name, reason="its path leads out of the archive"))
            continue
        if path in found:
            skipped.append(Skipped(source=path, reason="another file of the same name follows in the archive"))
        found[path] = entry
    files: dict[str, SourceFile] = {}
    links: dict[str, ArchiveEntry] = {}
    for path, entry in found.items():
        if entry.problem:
            skipped.append(Skipped(source=path, reason=entry.problem))
        elif entry.file is not None:
            files[path] = replace(entry.file, path=path)
        else:
            links[path] = entry
    made = {path for path in map(inside, folders) if path}
    _resolve(links, files, made, skipped, follow_links=follow_links)
    prefix = as_prefix(folder)
    return Contents(
        files={path: file for path, file in files.items() if path.startswith(prefix)},
        folders=frozenset(path for path in made if path.startswith(prefix)),
        skipped=tuple(each for each in skipped if each.source.startswith(prefix)),
        identity=identity,
        in_order=in_order,
    )


def as_prefix(folder: str) -> str:
    """What the paths of a folder's files begin with; empty for the whole source."""
    return "".join(f"{part}/" for part in folder.split("/") if part not in ("", "."))


def _resolve(
    links: dict[str, ArchiveEntry],
    files: dict[str, SourceFile],
    folders: set[str],
    skipped: list[Skipped],
    *,
    follow_links: bool,
) -> None:
    """Adds what links stand for: hard ones always, symbolic ones on request, of files or of folders of files."""
    followed = {path: entry for path, entry in links.items() if entry.is_hard or follow_links}
    plain = dict(files)
    inside_of = sorted(plain)
    to_folders: dict[str, str] = {}
    for path, entry in links.items():
        if path not in followed:
            skipped.append(Skipped(source=path, reason=f"a link ({FOLLOW})"))
            continue
        try:
            wanted = _lead(path, followed)
        except ValueError as error:
            skipped.append(Skipped(source=path, reason=str(error)))
            continue
        if wanted in plain:
            files[path] = replace(plain[wanted], path=path)
        elif not entry.is_hard and _beneath(inside_of, f"{wanted}/") and not path.startswith(f"{wanted}/"):
            to_folders[path] = wanted
        else:
            skipped.append(Skipped(source=path, reason=f"{_described(entry)}, which is not there"))
    ordered = sorted(files)
    for path, wanted in to_folders.items():
        folders.add(path)
        found = {path + each[len(wanted) :]: files[each] for each in _beneath(ordered, f"{wanted}/")}
        files |= {name: replace(file, path=name) for name, file in found.items()}
        nested = [path + each[len(wanted) :] for each in to_folders if each.startswith(f"{wanted}/")]
        skipped += [
            Skipped(source=each, reason="a link to a folder, in a folder that is itself linked") for each in nested
        ]


def _lead(path: str, links: Mapping[str, ArchiveEntry]) -> str:
    """The path that a path leads to, once every link in it is followed. Raises ValueError where it leads to nothing."""
    for _ in range(_MAX_LINKS):
        parts = path.split("/")
        upper = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
        link = next((each for each in upper if each in links), None)
        if link is None:
            return path
        entry = links[link]
        target = entry.target or ""
        # A hard link names a member, a symbolic one leads on from its own folder.
        base = "" if entry.is_hard else link.rpartition("/")[0]
        place = None if target.startswith("/") and not entry.is_hard else _joined(base, target)
        if place is None:
            raise ValueError(f"{_described(entry)}, outside of the archive")
        path = place + path[len(link) :]
    raise ValueError("a link that goes round in a circle")


def _described(link: ArchiveEntry) -> str:
    return f"a link to {printable(link.target or '')!r}"


def _beneath(ordered: list[str], prefix: str) -> list[str]:
    """The paths with a prefix, of sorted ones."""
    first = bisect_left(ordered, prefix)
    last = bisect_left(ordered, prefix[:-1] + chr(ord("/") + 1), lo=first)
    return ordered[first:last]


def _joined(base: str, target: str) -> str | None:
    """The path that a link in a folder of an archive leads to; None where it leaves the archive."""
    parts = base.split("/") if base else []
    for part in target.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
