"""Damage for tests of what must survive it."""

from pathlib import Path


def flip_bytes(path: Path, count: int = 16, *, at: float = 0.5) -> None:
    """Inverts `count` bytes of a file, from the fraction `at` of its length."""
    content = bytearray(path.read_bytes())
    first = int(at * len(content))
    assert 0 < count <= len(content) - first
    content[first : first + count] = bytes(byte ^ 0xFF for byte in content[first : first + count])
    path.write_bytes(content)


def truncate(path: Path, count: int = 100) -> None:
    """Cuts `count` bytes off the end of a file."""
    content = path.read_bytes()
    path.write_bytes(content[:-count])
