"""What decoders complain about besides failing: the warnings of libjpeg, libtiff and Pillow, and what none looks at.

Pillow discards libjpeg's warnings and fills with gray what is missing; libtiff's go to the terminal without the name of
a file; a PNG's checksums behind its header are not looked at; zeros in the place of a part of a JPEG become pixels.
"""

import os
import re
import struct
import tempfile
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

# A function of libtiff or of one of its codecs, or the name that Pillow gives every file, and a sentence.
_LIBTIFF_LINE = re.compile(
    rb"^(?:tempfile\.tif|_?(?:TIFF|tiff)\w*|\w*(?:Decode|Fax|LZW|ZIP|JPEG|LERC|Luv|LZMA|ZSTD|WEBP)\w*): .*\.\n",
    re.MULTILINE,
)
_PNG_START = 8
ZEROS = bytes(64)
"""More than an encoder writes into the pixels of most JPEGs; `jpeg_complaint` looks at those that have them."""
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")
_HUFFMAN, _SCAN, _END = 0xC4, 0xDA, 0xD9
_NOT_SEQUENTIAL = (0xC2, 0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_STDERR = 2

_heard = threading.local()
_lock = threading.Lock()
_num_listening = 0
_shown_by = warnings.showwarning
_stderr_lock = threading.Lock()


class Listener:
    """Collects what Pillow warns about in this thread while it is entered; other warnings pass.

    What the filters of `warnings` leave out is not heard: Python shows a text once, unless `every_warning` is around.
    A class rather than a generator with `contextmanager`: one for every image, it has to be quick.

    Attributes:
        texts: what was heard, each text once.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __enter__(self) -> "Listener":
        global _num_listening, _shown_by
        with _lock:
            if _num_listening == 0:
                _shown_by, warnings.showwarning = warnings.showwarning, _show
            _num_listening += 1
        _heard.texts = self.texts
        return self

    def __exit__(self, *_: object) -> None:
        global _num_listening
        _heard.texts = None
        with _lock:
            _num_listening -= 1
            if _num_listening == 0:
                warnings.showwarning = _shown_by


@contextmanager
def every_warning() -> Iterator[None]:
    """Has Pillow's warnings reach a `Listener` for each image, not once for all; around the threads of a conversion."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", module=r"PIL\.")
        # `ReadOptions.max_pixels` decides.
        warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
        yield


@contextmanager
def listen_to_libtiff() -> Iterator[list[str]]:
    """Collects what libtiff writes to the terminal meanwhile, each line once; one thread at a time.

    Pillow has no way to ask for it. What others write to stderr in that time is written after it.
    """
    lines: list[str] = []
    with _stderr_lock, tempfile.TemporaryFile() as capture:
        try:
            saved = os.dup(_STDERR)
        except OSError:  # There is no stderr.
            yield lines
            return
        os.dup2(capture.fileno(), _STDERR)
        try:
            yield lines
        finally:
            os.dup2(saved, _STDERR)
            os.close(saved)
            capture.seek(0)
            written = capture.read()
            found = (match.decode(errors="replace").rstrip() for match in _LIBTIFF_LINE.findall(written))
            lines += dict.fromkeys(found)
            with suppress(OSError):
                os.write(_STDERR, _LIBTIFF_LINE.sub(b"", written))


def png_complaint(data: bytes) -> str:
    """What is wrong with the chunks of a PNG file by their lengths and checksums; empty when nothing is."""
    view, start = memoryview(data), _PNG_START
    while start + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, start)
        end = start + 8 + length
        if end + 4 > len(data):
            return f"truncated in chunk {name.decode('latin-1')!r}"
        if zlib.crc32(view[start + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            return f"the checksum of chunk {name.decode('latin-1')!r} is wrong"
        if name == b"IEND":
            return ""
        start = end + 4
    return "truncated: it has no end"


def jpeg_complaint(data: bytes) -> str:
    """Where in the pixels of a JPEG zeros stand that no encoder wrote; empty where none do, or where they may be right.

    A disk or a download that has lost a part leaves them. A decoder takes them for pixels, and says nothing if as many
    come out as were lost. Zeros are the code of a Huffman table's first symbol again and again (ITU-T T.81, C.2). Where
    that is the end of a block, they may be a flat area; any other means blocks without an end, one after the other.
    Progressive files have flat areas as zeros too.
    """
    if data.find(ZEROS) < 0:
        return ""
    first_symbols: dict[int, int] = {}
    for marker, start, end in _jpeg_segments(data):
        if marker in _NOT_SEQUENTIAL:
            break
        if marker == _HUFFMAN:
            while start + 17 < end:
                if data[start] >= 16:  # of the coefficients behind the first
                    first_symbols[data[start] & 15] = data[start + 17]
                start += 17 + sum(data[start + 1 : start + 17])
        elif marker == _SCAN:
            tables = data[start + 2 : start + 1 + 2 * data[start] : 2]
            found = _JPEG_MARKER.search(data, end)
            place = data.find(ZEROS, end, len(data) if found is None else found.start())
            if place >= 0 and any(first_symbols.get(table & 15) for table in tables):
                return f"a part of its pixels is lost: zeros from byte {place:,} on"
    return ""


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, first byte and end of each segment of a JPEG, as far as they can be followed; of a scan, its header."""
    start = 2
    while (found := _JPEG_MARKER.search(data, start)) is not None:
        marker, start = found[1][0], found.end()
        if marker == _END or start + 2 > len(data):
            return
        end = start + int.from_bytes(data[start : start + 2], "big")
        if end >= len(data):
            return
        yield marker, start + 2, end
        start = end


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    texts: list[str] | None = getattr(_heard, "texts", None)
    if texts is None or "PIL" not in filename:
        _shown_by(message, category, filename, lineno, file, line)
    elif (text := " ".join(str(message).split())) not in texts:
        texts.append(text)
