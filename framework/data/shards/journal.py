"""What an unfinished set already holds, so that writing it can go on where it was interrupted.

`conversion.jsonl` in the set's folder: a digest of what is being written, then a line for each shard that is complete.
Its last line may be half of one; the file goes away when the set is finished.
"""

import hashlib
import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Generic, TypeVar

from framework.core.io import PARTIAL, sha256_of, sync_folder
from framework.core.serialization import from_json, parse_object, to_json
from framework.data.shards.manifest import ShardRecord

JOURNAL = "conversion.jsonl"
_VERSION = 1
Facts = TypeVar("Facts")


class Journal(Generic[Facts]):
    """The journal of a folder; threads may share it.

    Args:
        folder: of the set.
        digest: of what is being written; a journal of something else counts for nothing. None: nothing is noted.
        kind: record of what is known of a shard.

    Attributes:
        parts: what is known of the shards that are complete, by name.
    """

    def __init__(self, folder: Path, digest: str | None, kind: type[Facts]) -> None:
        self._path = folder / JOURNAL
        self._digest = digest
        self._lock = threading.Lock()
        self.parts: dict[str, Facts] = {} if digest is None else _read(self._path, digest, kind)

    def begin(self) -> None:
        """Writes the journal anew, with what is known. Raises OSError."""
        if self._digest is None:
            self._path.unlink(missing_ok=True)
            return
        lines = [json.dumps({"version": _VERSION, "digest": self._digest})]
        lines += [_line(name, facts) for name, facts in self.parts.items()]
        partial = self._path.with_name(self._path.name + PARTIAL)
        partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        partial.replace(self._path)
        sync_folder(self._path.parent)

    def note(self, name: str, facts: Facts) -> None:
        """A shard is complete, or has no sample. Raises OSError."""
        if self._digest is None:
            return
        with self._lock, self._path.open("a", encoding="utf-8") as stream:
            stream.write(_line(name, facts) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def is_as_noted(path: Path, record: ShardRecord | None) -> bool:
    """Whether a shard is there, every byte of it; nothing need be where it has no sample."""
    if record is None:
        return True
    return path.is_file() and path.stat().st_size == record.num_bytes and sha256_of(path) == record.sha256


def digest_of(parts: Iterable[object]) -> str:
    """A digest of values by what `repr` writes of them."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part!r}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _line(name: str, facts: object) -> str:
    return json.dumps({"shard": name, "facts": to_json(facts)})


def _read(path: Path, digest: str, kind: type[Facts]) -> dict[str, Facts]:
    try:
        first, *lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        begun = parse_object(first)
    except (OSError, ValueError):
        return {}
    if begun != {"version": _VERSION, "digest": digest}:
        return {}
    found: dict[str, Facts] = {}
    for line in lines:
        # The last line may be cut; what would follow such a one was written by nobody.
        try:
            record = parse_object(line)
            found[str(record["shard"])] = from_json(kind, record["facts"])
        except (ValueError, KeyError):
            break
    return found
