"""A sample that cannot be decoded: an error that names it, or another one in its place, the same on every topology."""

from pathlib import Path

import pytest

from framework.core.errors import DataError
from framework.data.images.transforms import ImageTransform
from framework.data.loading.batch import PixelBatch
from framework.data.loading.datasets import ImageDataset
from framework.data.loading.loader import ShardLoader
from framework.data.sampling.batching import BatchPlan, MicroBatches
from framework.data.sampling.mixing import JoinedShards
from framework.data.sampling.order import EpochOrder
from framework.data.shards.reader import ShardSet
from framework.testing.images import make_image_shards

NUM_SAMPLES = 16
BAD = (3, 4, 11)
REPLACED_BY = {3: 5, 4: 5, 11: 12}


def spoil(shards: Path, numbers: tuple[int, ...]) -> str:
    """Overwrites the signature of some images: they are read as before, and are none."""
    opened = ShardSet(shards)
    for number in numbers:
        shard, offset = opened.index[number, :2].tolist()
        with (shards / opened.manifest.shards[shard].name).open("r+b") as stream:
            stream.seek(offset)
            stream.write(b"\0PNG")
    return str(shards)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("loader")
    make_image_shards(path, per_class=NUM_SAMPLES // 2, size=8)
    return spoil(path / "shards", BAD)


def load(shards: str, plan: BatchPlan, *, num_workers: int = 0, **changes) -> list[PixelBatch]:
    """One epoch of a process."""
    options = {name: changes.pop(name) for name in ("max_bad_samples",) if name in changes}
    opened = ShardSet(shards)
    dataset = ImageDataset(JoinedShards([opened]), ImageTransform(size=8), **{"on_bad_sample": "skip", **changes})
    order = EpochOrder([record.num_samples for record in opened.manifest.shards])
    return list(ShardLoader(dataset, MicroBatches(order, plan), num_workers=num_workers, **options))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*the next good sample stands in for it")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_next_good_sample_stands_in_on_every_topology(shards: str, num_workers: int):
    order = EpochOrder([4] * 4).permutation(0).tolist()
    expected = [REPLACED_BY.get(number, number) for number in order]
    for ranks, accumulation in ((1, 1), (2, 1), (1, 2)):
        loaded = [
            load(shards, BatchPlan(micro_batch=8 // ranks // accumulation, num_ranks=ranks, rank=rank), num_workers=n)
            for rank, n in ((rank, num_workers) for rank in range(ranks))
        ]
        seen = [index for step in zip(*loaded, strict=True) for batch in step for index in batch.indices.tolist()]
        assert seen == expected
        replaced = {each.number for batches in loaded for batch in batches for each in batch.replaced}
        assert replaced == set(BAD)


def test_every_bad_sample_is_said_once(shards: str):
    with pytest.warns(UserWarning, match="the next good sample stands in") as said:
        load(shards, BatchPlan(micro_batch=4))
    messages = [str(each.message) for each in said]
    assert len(messages) == len(BAD)
    for number in BAD:
        assert any(
            f"sample {number} (byte " in message and "not an image of a known" in message for message in messages
        )


@pytest.mark.filterwarnings("ignore:.*the next good sample stands in for it")
def test_too_many_bad_samples(shards: str):
    with pytest.raises(DataError, match=r"more than 2 bad samples, the last: sample \d+ .*cannot be decoded"):
        load(shards, BatchPlan(micro_batch=4), max_bad_samples=2)
    load(shards, BatchPlan(micro_batch=4), max_bad_samples=3)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_stop_names_the_sample_and_the_hint(shards: str, num_workers: int):
    with pytest.raises(DataError, match=r"sample (3|4|11) \(byte .*framework shards check.*on_bad_sample skip"):
        load(shards, BatchPlan(micro_batch=4), on_bad_sample="stop", num_workers=num_workers)


def test_a_set_without_a_good_sample_ends(tmp_path: Path):
    make_image_shards(tmp_path, per_class=2)
    shards = spoil(tmp_path / "shards", (0, 1, 2, 3))
    with pytest.raises(DataError, match="1000 bad samples in a row, the last: sample"):
        load(shards, BatchPlan(micro_batch=4))
