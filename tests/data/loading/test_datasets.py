"""Episodes are parsed, and bytes that are not JSON are bad samples."""

import json
from itertools import islice

import pytest
import torch

from framework.core.errors import DataError
from framework.data.loading.batch import EpisodeBatch
from framework.data.loading.datasets import EpisodeDataset
from framework.data.loading.loader import ShardLoader
from framework.data.sampling.batching import BatchPlan, MicroBatches
from framework.data.sampling.mixing import JoinedShards
from framework.data.sampling.order import EpochOrder
from framework.data.shards.reader import ShardSet


class Episodes(ShardSet):
    """A set of episodes in memory."""

    def __init__(self, *values: bytes) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def read(self, number: int) -> tuple[bytes, int]:
        return self.values[number], -1

    def describe(self, number: int) -> str:
        return f"sample {number}"


def test_episodes_are_parsed():
    values = [{"task": number, "steps": [{"text": "é"}]} for number in range(6)]
    shards = JoinedShards([Episodes(*(json.dumps(value).encode() for value in values))])
    order = EpochOrder([6], shuffle="none")
    loader = ShardLoader(EpisodeDataset(shards), MicroBatches(order, BatchPlan(micro_batch=3)))
    batches = list(islice(loader, 2))
    assert [len(batch) for batch in batches] == [3, 3]
    assert [episode for batch in batches for episode in batch.episodes] == values
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(6))
    batch = batches[0]
    assert isinstance(batch, EpisodeBatch)
    assert batch.to("meta") is batch.pin_memory() is batch
    assert (batch.epoch, batch.sample_passes()) == (0, [0, 0, 0])


@pytest.mark.parametrize("bad", [b"{", b"\xff", b""])
def test_bytes_that_are_no_json(bad: bytes):
    shards = JoinedShards([Episodes(b"0", bad, b"2")])
    order, plan = EpochOrder([3], shuffle="none"), BatchPlan(micro_batch=3)
    with pytest.raises(DataError, match=r"sample 1 cannot be decoded \(.+\)"):
        list(ShardLoader(EpisodeDataset(shards), MicroBatches(order, plan)))
    with pytest.warns(UserWarning, match="sample 1 cannot be decoded"):
        (batch,) = ShardLoader(EpisodeDataset(shards, on_bad_sample="skip"), MicroBatches(order, plan))
    assert (batch.episodes, batch.indices.tolist(), [each.number for each in batch.replaced]) == (
        (0, 2, 2),
        [0, 2, 2],
        [1],
    )
