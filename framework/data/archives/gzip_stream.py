"""Random access to what a gzip file holds, without unpacking it: the state of the decompression is kept at some places.

The idea of zlib's example `zran.c`; zlib's own copies of a decompressor (32 KiB each) are the places.
"""

import io
import os
import threading
import zlib
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

_GZIP = 16 + zlib.MAX_WBITS
_INPUT = 1 << 16
_OUTPUT = 1 << 20
_FIRST_SPACING = 1 << 22
_MAX_PLACES = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """The state of the decompression before the byte `position` of the contents; `consumed` bytes of the file."""

    position: int
    consumed: int
    inflater: Any  # zlib's class has no name


@dataclass(kw_only=True)
class Places:
    """Where reading may begin; readers of one file in several threads share them.

    Where they become too many, every second one goes, and the next ones are twice as far apart: 1,024 at most, 40 MiB.
    """

    _places: list[_Place] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _spacing: int = _FIRST_SPACING

    def note(self, position: int, consumed: int, inflater: Any) -> None:
        """Keeps a place if it lies far enough behind the last one.

        Args:
            position: in the contents.
            consumed: bytes of the file that led there.
            inflater: zlib's state; copied.
        """
        with self._lock:
            if position < (self._places[-1].position if self._places else 0) + self._spacing:
                return
            self._places.append(_Place(position=position, consumed=consumed, inflater=inflater.copy()))
            if len(self._places) > _MAX_PLACES:
                del self._places[::2]
                self._spacing *= 2

    def before(self, position: int) -> tuple[int, int, Any]:
        """The last place at or before a position, as for `note`: the start of the file, if need be."""
        with self._lock:
            number = bisect_right(self._places, position, key=lambda place: place.position)
            if number == 0:
                return 0, 0, zlib.decompressobj(_GZIP)
            place = self._places[number - 1]
            return place.position, place.consumed, place.inflater.copy()


class GzipStream(io.RawIOBase):
    """The contents of a gzip file, or of several one after the other, seekable; for one thread.

    Reading raises ValueError where the file is damaged or ends too early, and EOFError never: a file that is whole is
    read to its end, checksums and all.

    Args:
        descriptor: of the open file, read by position.
        places: of this file.
    """

    def __init__(self, descriptor: int, places: Places) -> None:
        self._descriptor, self._places = descriptor, places
        self._position, self._consumed, self._inflater = places.before(0)
        self._wanted = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._wanted

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves, without reading anything yet; not from the end, which nobody knows."""
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("from the end")
        self._wanted = max(0, offset + (self._wanted if whence == io.SEEK_CUR else 0))
        return self._wanted

    def readinto(self, buffer: bytearray | memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._go_to(self._wanted)
        data = self._inflate(len(buffer)) if self._position == self._wanted else b""
        buffer[: len(data)] = data
        self._wanted = self._position
        return len(data)

    def _go_to(self, position: int) -> None:
        """Decompresses up to a position, or the end, from the nearest place before it."""
        if position < self._position:
            self._position, self._consumed, self._inflater = self._places.before(position)
        else:
            place = self._places.before(position)
            if place[0] > self._position:
                self._position, self._consumed, self._inflater = place
        while self._position < position and self._inflate(min(_OUTPUT, position - self._position)):
            pass

    def _inflate(self, limit: int) -> bytes:
        """The next bytes of the contents, `limit` at most; none at the end."""
        while limit:
            if self._inflater.eof and not self._next_part():
                return b""
            chunk = os.pread(self._descriptor, _INPUT, self._consumed)
            try:
                data = self._inflater.decompress(chunk, limit)
            except zlib.error as error:
                raise ValueError(f"damaged: {error} (byte {self._consumed:,})") from None
            # At the end both may hold what is left.
            left = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
            self._consumed += len(chunk) - len(left)
            self._position += len(data)
            if data:
                if not self._inflater.eof:
                    self._places.note(self._position, self._consumed, self._inflater)
                return data
            if not chunk and not self._inflater.eof:
                raise ValueError(f"truncated: it stops at byte {self._consumed:,}")
        return b""

    def _next_part(self) -> bool:
        """Begins the next of several gzip files in one; whether there is one. Zeros may pad the end."""
        while chunk := os.pread(self._descriptor, _INPUT, self._consumed):
            padding = len(chunk) - len(chunk.lstrip(b"\0"))
            self._consumed += padding
            if padding < len(chunk):
                self._inflater = zlib.decompressobj(_GZIP)
                return True
        return False
