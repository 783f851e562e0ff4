"""Sets for benchmarks are real ones, and the same every time."""

from pathlib import Path

import numpy as np

from framework.bench.image_shards import make_jpeg_shards, repeat_shards
from framework.data.shards.check import check_shards
from framework.data.shards.reader import ShardSet


def test_images_are_the_same_every_time(tmp_path: Path):
    first, second = (make_jpeg_shards(tmp_path / name, size=16, num_images=8, num_shards=2) for name in ("a", "b"))
    assert check_shards(first) == []
    one, two = ShardSet(first), ShardSet(second)
    assert (len(one), len(one.manifest.shards)) == (8, 2)
    assert [one.read(number) for number in range(8)] == [two.read(number) for number in range(8)]
    assert one.manifest.class_counts == (4, 4)


def test_repeated_shards_are_a_good_set(tmp_path: Path):
    small = make_jpeg_shards(tmp_path, size=16, num_images=16)
    large = repeat_shards(small, tmp_path / "large", num_samples=40)
    assert check_shards(large) == []
    one, many = ShardSet(small), ShardSet(large)
    assert (len(many), len(many.manifest.shards)) == (48, 24)
    assert [many.read(number) for number in range(48)] == [one.read(number % 16) for number in range(48)]
    assert np.bincount(many.index[:, 0]).tolist() == [2] * 24
    assert (large / "shard-000000.tar").stat().st_nlink == 4
