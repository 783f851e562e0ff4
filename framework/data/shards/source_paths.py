"""Where each sample of a set comes from: `sources.tsv`, a line MEMBER<tab>PATH for each, in the order of the set.

The path is that inside the source; a tab, a line break or a backslash in it is escaped as in Python. A million
lines are some 50 MB: not for the manifest, which every process of a training reads.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase, BytesIO
from pathlib import Path, PurePosixPath

from framework.core.errors import ConfigError, DataError
from framework.core.io import atomic_write, sha256_of
from framework.data.archives.names import printable
from framework.data.remote.files import Patience, RemoteConfig, fetch_bytes, retried
from framework.data.shards.manifest import SOURCES
from framework.data.shards.reader import ShardSet

_ESCAPES = {ord("\\"): r"\\", ord("\t"): r"\t", ord("\n"): r"\n", ord("\r"): r"\r"}
_ESCAPED = re.compile(r"\\(.)")
_CHARACTERS = {"t": "\t", "n": "\n", "r": "\r"}


@dataclass(frozen=True, kw_only=True, slots=True)
class SourcePath:
    """Where a sample comes from.

    Attributes:
        member: its member in the shards.
        path: of its file inside the source; `row 7` and the like for a source that is one file.
    """

    member: str
    path: str


def write_source_paths(folder: Path, paths: Iterable[SourcePath]) -> str:
    """Writes the file into a set's folder; returns its SHA-256. Raises OSError."""
    with atomic_write(folder / SOURCES) as stream:
        for each in paths:
            stream.write(f"{each.member}\t{printable(each.path).translate(_ESCAPES)}\n".encode())
    return sha256_of(folder / SOURCES)


def find_source(dest: str | Path, member: str, *, remote: RemoteConfig = RemoteConfig()) -> SourcePath:
    """Where one sample of a set comes from.

    Args:
        dest: the set's folder or URL.
        member: `000000012.jpg`, its name without the suffix, or with the shard's before it; or `sample 12`, its number
            in the set's order.
        remote: for a URL, how its files are fetched.

    Raises:
        DataError: no set, or one without such a file.
        ConfigError: no such sample.
    """
    shards = ShardSet(dest, remote=remote)
    if shards.manifest.label_key is not None:
        raise DataError(f"{dest} was indexed where it is", hint="its members are its sources")
    if shards.manifest.sources_sha256 is None:
        hint = "write the set again with this version: framework shards images SOURCE DEST --overwrite"
        raise DataError(f"{dest} does not say where its samples come from", hint=hint)
    number = re.fullmatch(r"sample (\d+)", member)
    wanted = PurePosixPath(member).name
    with _opened(dest, remote) as stream:
        for line, each in enumerate(_read(stream)):
            if line == int(number[1]) if number else wanted in (each.member, PurePosixPath(each.member).stem):
                return each
    problem = f"{dest} has no {member}" if number else f"{dest} has no member {member!r}"
    raise ConfigError(problem, hint=f"it holds {len(shards):,} samples, such as {shards.member(0)}")


def _opened(dest: str | Path, remote: RemoteConfig) -> BufferedIOBase:
    where = f"{str(dest).rstrip('/')}/{SOURCES}"
    if "://" in where:
        patience = Patience(where, remote)
        return BytesIO(retried(lambda: fetch_bytes(where, patience=patience), patience=patience))
    try:
        return Path(where).open("rb")
    except OSError as error:
        hint = "copy it from where the set was written, or write the set again"
        raise DataError(f"{where} cannot be read ({error.strerror})", hint=hint) from None


def _read(stream: BufferedIOBase) -> Iterator[SourcePath]:
    for line in stream:
        member, _, path = line.decode(errors="backslashreplace").rstrip("\n").partition("\t")
        yield SourcePath(member=member, path=_ESCAPED.sub(lambda found: _CHARACTERS.get(found[1], found[1]), path))
