"""What is in a shard set, for tests that compare two."""

import hashlib
from pathlib import Path

from framework.data.shards.reader import ShardSet


def all_samples(path: Path) -> list[tuple[bytes, int]]:
    """Bytes and label of every sample."""
    shards = ShardSet(path)
    return [shards.read(number) for number in range(len(shards))]


def digests(dest: Path) -> dict[str, str]:
    """SHA-256 of every file, by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(dest.iterdir())}
