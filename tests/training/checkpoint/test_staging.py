"""Copies of a state that training does not change any more, in memory that is used again."""

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from framework.training.checkpoint.staging import Staging


def state(value: float) -> dict[str, Tensor]:
    transposed = torch.full((3, 2), value).T
    return {"weight": torch.full((2, 3), value), "half": torch.full((4,), value).bfloat16(), "view": transposed}


def test_copies_do_not_change_with_what_was_copied():
    tensors = state(1.0)
    copies = Staging().copy(tensors)
    for tensor in tensors.values():
        tensor.fill_(2.0)
    assert all((copy == 1).all() for copy in copies.values())
    assert {name: copy.dtype for name, copy in copies.items()} == {name: t.dtype for name, t in tensors.items()}


def test_the_memory_is_used_again():
    # Twice and once more: torch 2.11's own stager fails at the second time.
    staging, places = Staging(), set()
    for value in (1.0, 2.0, 3.0):
        copies = staging.copy(state(value))
        places.add(tuple(copy.data_ptr() for copy in copies.values()))
        assert all((copy == value).all() for copy in copies.values())
    assert len(places) == 1


def test_other_tensors_than_the_last_time():
    staging = Staging()
    staging.copy({"gone": torch.ones(2), "grown": torch.ones(2)})
    copies = staging.copy({"grown": torch.ones(5), "new": torch.zeros(3, dtype=torch.int64)})
    assert {name: tuple(copy.shape) for name, copy in copies.items()} == {"grown": (5,), "new": (3,)}
    assert copies["new"].dtype == torch.int64
    (copy,) = staging.copy({"grown": torch.ones(5, dtype=torch.float64)}).values()
    assert copy.dtype == torch.float64


def test_parameters_are_copied_without_a_graph():
    parameter = torch.nn.Parameter(torch.ones(2))
    assert not Staging().copy({"p": parameter})["p"].requires_grad


@pytest.fixture
def alone():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_shards_stay_shards(alone: None):
    sharded = distribute_tensor(torch.arange(6.0), init_device_mesh("cpu", (1,)), [Shard(0)])
    staging = Staging()
    for factor in (1, 2):
        copy = staging.copy({"weight": sharded * factor})["weight"]
        assert isinstance(copy, DTensor)
        assert (copy.placements, copy.device_mesh) == (sharded.placements, sharded.device_mesh)
        assert copy.to_local().tolist() == [factor * value for value in range(6)]
