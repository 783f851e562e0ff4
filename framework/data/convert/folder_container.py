"""A folder of files."""

import os
from collections.abc import Iterator
from pathlib import Path

from framework.data.convert.contents import FOLLOW, Contents, as_prefix, read_bounded
from framework.data.shards.manifest import Skipped
from framework.data.shards.writer import SourceFile


class FolderContainer:
    """A folder of files; links are followed on request, but for those to files inside of it."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._root = source.resolve()

    def contents(self, *, folder: str, follow_links: bool) -> Contents:
        """Everything in one of its folders and the folders in that. Raises OSError."""
        skipped: list[Skipped] = []
        folders: set[str] = set()
        prefix = as_prefix(folder)
        above = (self._root, (self._source / prefix).resolve()) if prefix else (self._root,)
        walked = self._walk(prefix, above, folders, skipped, follow_links) if above[-1].is_dir() else ()
        files = {each.path: each for each in walked}
        return Contents(files=files, folders=frozenset(folders), skipped=tuple(skipped), identity="folder")

    def read(self, file: SourceFile) -> bytes:
        """A file's bytes. Raises OSError, or ValueError for one that is too large."""
        return read_bounded(self._source / file.path)

    def close(self) -> None:
        """Nothing is open."""

    def _walk(
        self, prefix: str, above: tuple[Path, ...], folders: set[str], skipped: list[Skipped], follow_links: bool
    ) -> Iterator[SourceFile]:
        """The files under a prefix; adds the folders, and what is skipped.

        Args:
            prefix: path of a folder, with a slash; empty for the source.
            above: the folder's own place and those of the folders that it was reached through.
            folders: gets the paths of folders.
            skipped: gets what cannot be read.
            follow_links: go where links lead.
        """
        # Not a call for each level: folders may be nested deeper than Python calls may.
        waiting = [(prefix, above)]
        while waiting:
            prefix, above = waiting.pop()
            with os.scandir(self._source / prefix) as entries:
                for entry in entries:
                    path = prefix + entry.name
                    reason = self._refusal(entry, above, follow_links)
                    if reason:
                        skipped.append(Skipped(source=path, reason=reason))
                    elif entry.is_dir():
                        folders.add(path)
                        # Only links can lead back.
                        reached = (*above, Path(entry.path).resolve()) if follow_links else above
                        waiting.append((path + "/", reached))
                    else:
                        facts = entry.stat()
                        yield SourceFile(path=path, label=None, size=facts.st_size, stamp=facts.st_mtime_ns)

    def _refusal(self, entry: "os.DirEntry[str]", above: tuple[Path, ...], follow_links: bool) -> str:
        """Why something is not read; empty if it is."""
        if not entry.is_symlink():
            return "" if entry.is_dir() or entry.is_file() else "not a regular file"
        if not Path(entry.path).exists():
            return "a link to nothing"
        if entry.is_dir():
            if not follow_links:
                return f"a link to a folder ({FOLLOW})"
            return "a link to a folder that it is in" if Path(entry.path).resolve() in above else ""
        if not follow_links and not Path(entry.path).resolve().is_relative_to(self._root):
            return f"a link that leaves the source ({FOLLOW})"
        return "" if entry.is_file() else "not a regular file"
