"""The numbers of a shard set, by hand."""

import json
from pathlib import Path

from framework.data.convert.jsonl import write_jsonl_shards
from framework.data.shards.reader import ShardSet
from framework.data.shards.stats import measure
from framework.testing.images import make_image_shards


def test_images_by_hand(tmp_path: Path):
    make_image_shards(tmp_path, per_class=3, size=8, samples_per_shard=4)
    shards = ShardSet(tmp_path / "shards")
    stats = measure(shards)
    sizes = sorted(len(shards.read(number)[0]) for number in range(6))
    assert (stats.kind, stats.num_samples, stats.num_skipped) == ("images", 6, 0)
    assert stats.sample_bytes == (sizes[0], (sizes[2] + sizes[3]) // 2, sum(sizes) // 6, sizes[-1])
    assert stats.classes == {"cat": 3, "dog": 3}
    assert (stats.image_sizes, stats.image_modes) == ({"8x8": 6}, {"RGB": 6})
    # Three cats and a dog, then two dogs.
    assert [(shard.num_samples, shard.num_classes) for shard in stats.shards] == [(4, 2), (2, 1)]
    files = [(tmp_path / "shards" / shard.name).stat().st_size for shard in stats.shards]
    assert [shard.num_bytes for shard in stats.shards] == files
    assert stats.num_bytes == sum(files)


def test_episodes_have_no_classes(tmp_path: Path):
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps({"n": number}) for number in range(3)) + "\n[1]\n")
    write_jsonl_shards(tmp_path / "x.jsonl", tmp_path / "shards")
    stats = measure(ShardSet(tmp_path / "shards"))
    assert (stats.kind, stats.num_samples, stats.num_skipped, stats.classes) == ("episodes", 3, 1, {})
    assert stats.sample_bytes == (8, 8, 8, 8)
    assert [shard.num_classes for shard in stats.shards] == [0]
