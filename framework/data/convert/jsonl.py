"""JSON lines to a shard set of episodes."""

from collections.abc import Iterator
from pathlib import Path

from framework.core.console import working
from framework.core.errors import DataError
from framework.data.archives.tar import MAX_MEMBER_BYTES
from framework.data.convert.contents import identity_of, open_parts
from framework.data.shards.manifest import Manifest
from framework.data.shards.writer import Listing, SourceFile, WriteOptions, write_listing

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def write_jsonl_shards(
    source: str | Path,
    dest: str | Path,
    *,
    options: WriteOptions = WriteOptions(),
) -> Manifest:
    """Writes a file with a JSON object in each line as shards of episodes, each line as the bytes that it was.

    Empty lines are passed over. Lines that are no JSON object are skipped, and listed with their numbers.

    Args:
        source: the file, UTF-8.
        dest: folder of the shard set; made if it is missing.
        options: how the set is written.

    Raises:
        DataError: no such file, a line of more than 256 MiB, or what `write_listing` raises.
    """
    source = Path(source)
    try:
        with working(f"listing {source}"):
            listing = Listing(classes=(), files=tuple(_lines(source)), skipped=(), identity=identity_of(source))
    except OSError as error:
        raise DataError(f"{source} cannot be read ({error.strerror})", hint="give a file of JSON lines") from None
    with open_parts(source) as read:
        return write_listing(Path(dest), listing, read, kind="episodes", options=options)


def _lines(source: Path) -> Iterator[SourceFile]:
    """The lines that are not empty, without the white space at their ends."""
    number, offset = 0, 0
    with source.open("rb") as stream:
        while line := stream.readline(MAX_MEMBER_BYTES + 1):
            number += 1
            if len(line) > MAX_MEMBER_BYTES:
                problem = f"line {number} of {source} has more than {MAX_MEMBER_BYTES:,} bytes"
                raise DataError(problem, hint="give a file with one JSON object a line")
            text = line.removeprefix(_BYTE_ORDER_MARK).strip() if number == 1 else line.strip()
            if text:
                start = offset + line.index(text)
                yield SourceFile(path=f"line {number}", label=None, offset=start, size=len(text))
            offset += len(line)
