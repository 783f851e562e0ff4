"""Every rank agrees with every other; with one process there is nothing to agree on."""

import pytest
import torch
import torch.distributed as dist

from framework.core.collectives import all_gather_object, broadcast_object, mean_over_ranks, rank_and_size
from framework.testing.processes.forked import run_forked


def test_one_process_alone():
    assert rank_and_size() == (0, 1)
    value = {"a": [1]}
    (gathered,) = all_gather_object(value)
    assert gathered is value
    assert broadcast_object(value) is value
    mean = torch.tensor(3.0)
    assert mean_over_ranks(mean) is mean


def agree():
    """On two processes."""
    dist.init_process_group("gloo")
    group = dist.new_group(backend="gloo")
    rank, size = rank_and_size()
    return [
        [rank, size],
        all_gather_object({"rank": rank}),
        broadcast_object(f"of rank {rank}"),
        all_gather_object(rank, group),
        broadcast_object(rank + 7, group),
        mean_over_ranks(torch.tensor([1.0 + rank, 4.0])).tolist(),
    ]


@pytest.mark.slow
def test_two_processes():
    results = run_forked(agree, 2).results
    assert results.keys() == {0, 1}
    for rank, result in results.items():
        assert result == [[rank, 2], [{"rank": 0}, {"rank": 1}], "of rank 0", [0, 1], 7, [1.5, 4.0]]
