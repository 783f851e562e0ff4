"""A gzip file is read anywhere, as if it were unpacked, and every cut and flipped byte is seen."""

import gzip
import io
import random
from pathlib import Path

import pytest

from framework.data.archives import gzip_stream
from framework.data.archives.gzip_stream import GzipStream, Places


@pytest.fixture
def contents() -> bytes:
    draw = random.Random(0)
    return b"".join(draw.randbytes(1000) + bytes(3000) for _ in range(300))


def write(path: Path, *parts: bytes, padding: int = 0) -> Path:
    path.write_bytes(b"".join(map(gzip.compress, parts)) + bytes(padding))
    return path


@pytest.mark.parametrize("spacing", [1 << 14, 1 << 30])
@pytest.mark.parametrize("most", [4, 1024])
def test_any_part_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: bytes, spacing: int, most: int):
    monkeypatch.setattr(gzip_stream, "_MAX_PLACES", most)
    path = write(tmp_path / "a.gz", contents[:500_000], contents[500_000:], padding=700)
    places = Places(_spacing=spacing)
    with path.open("rb") as file:
        assert GzipStream(file.fileno(), places).readall() == contents
        assert len(places._places) <= most
        reader = io.BufferedReader(GzipStream(file.fileno(), places))
        draw = random.Random(1)
        for _ in range(40):
            start, size = draw.randrange(len(contents)), draw.randrange(9000)
            reader.seek(start)
            assert reader.read(size) == contents[start : start + size]
        reader.seek(len(contents) + 5)
        assert reader.read(1) == b""


def test_damage_is_seen(tmp_path: Path, contents: bytes):
    whole = write(tmp_path / "a.gz", contents[:100_000]).read_bytes()
    for size in [*range(0, len(whole), 997), len(whole) - 1]:
        (tmp_path / "a.gz").write_bytes(whole[:size])
        with (tmp_path / "a.gz").open("rb") as file:
            if size == 0:
                continue
            with pytest.raises(ValueError, match=r"truncated|damaged"):
                GzipStream(file.fileno(), Places()).readall()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    (tmp_path / "a.gz").write_bytes(flipped)
    with (tmp_path / "a.gz").open("rb") as file, pytest.raises(ValueError, match="damaged"):
        GzipStream(file.fileno(), Places()).readall()
