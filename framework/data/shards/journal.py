"""What an unfinished set already holds, so that writing it can go on where it was interrupted.

`conversion.jsonl` in the set's folder: a digest of what all shards depend on, then a line for each shard that is
complete, with a digest of what it was made of. Its last line may be half of one; the file goes away when the set is
finished.
"""

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from framework.core.io import PARTIAL, sha256_of, sync_folder
from framework.core.serialization import from_json, parse_object, to_json
from framework.data.shards.manifest import ShardRecord

JOURNAL = "conversion.jsonl"
_VERSION = 2
Facts = TypeVar("Facts")


class Journal(Generic[Facts]):
    """The journal of a folder; threads may share it.

    Args:
        folder: of the set.
        digest: of what all shards depend on; a journal of something else counts for nothing. None: nothing is noted.
        made_of: digests of what each shard is made of, by name; one that was made of something else counts for nothing.
        kind: record of what is known of a shard.

    Attributes:
        parts: what is known of the shards that are complete, by name.
    """

    def __init__(self, folder: Path, digest: str | None, made_of: Mapping[str, str], kind: type[Facts]) -> None:
        self._path = folder / JOURNAL
        self._digest, self._made_of = digest, made_of
        self._lock = threading.Lock()
        self.parts: dict[str, Facts] = {} if digest is None else _read(self._path, digest, made_of, kind)

    def begin(self) -> None:
        """Writes the journal anew, with what is known. Raises OSError."""
        if self._digest is None:
            self._path.unlink(missing_ok=True)
            return
        lines = [json.dumps({"version": _VERSION, "digest": self._digest})]
        lines += [self._line(name, facts) for name, facts in self.parts.items()]
        partial = self._path.with_name(self._path.name + PARTIAL)
        partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        partial.replace(self._path)
        sync_folder(self._path.parent)

    def note(self, name: str, facts: Facts) -> None:
        """A shard is complete, or has no sample. Raises OSError."""
        if self._digest is None:
            return
        with self._lock, self._path.open("a", encoding="utf-8") as stream:
            stream.write(self._line(name, facts) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def _line(self, name: str, facts: Facts) -> str:
        return json.dumps({"shard": name, "made_of": self._made_of[name], "facts": to_json(facts)})


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


def _read(path: Path, digest: str, made_of: Mapping[str, str], kind: type[Facts]) -> dict[str, Facts]:
    """What a journal says.

    Args:
        path: of the file; none is as good as one that says nothing.
        digest: as of `Journal`.
        made_of: likewise.
        kind: likewise.
    """
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
            name = str(record["shard"])
            if record["made_of"] == made_of.get(name):
                found[name] = from_json(kind, record["facts"])
        except (ValueError, KeyError):
            break
    return found
