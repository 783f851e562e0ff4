"""Parts of FSDP2's parameters: filled, gathered and counted once, with uneven shards and with replicas."""

from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from framework.core.compat.torch_compat import set_timeout
from framework.testing.processes.forked import run_forked
from framework.training.strategies.backend import backend_of_tensor, gradient_norm, is_sharded, local_part
from framework.training.strategies.config import FSDP2Options, StrategyConfig
from framework.training.strategies.fsdp2 import FSDP2, sharded_values
from framework.training.strategies.workload import Workload


class Saved:
    """A tensor as of a file."""

    def __init__(self, value: torch.Tensor) -> None:
        self.value = value

    def rows(self, first: int, end: int) -> torch.Tensor:
        return self.value[first:end]

    def whole(self) -> torch.Tensor:
        raise AssertionError("only the rank's own rows are read")


def parts(shape: list[int]) -> dict[str, Any]:
    dist.init_process_group("gloo")
    names = ("replicate", "shard")[2 - len(shape) :]
    layer = nn.Linear(2, 5)
    mesh = init_device_mesh("cpu", tuple(shape), mesh_dim_names=names)
    set_timeout(mesh, timedelta(seconds=77))
    fully_shard(layer, mesh=mesh)
    timeouts = [group._get_backend(torch.device("cpu")).options._timeout for group in mesh.get_all_groups()]
    found: dict[str, Any] = {"sharded": is_sharded(layer), "timeouts": [each.total_seconds() for each in timeouts]}
    for name, parameter in layer.named_parameters():
        backend = backend_of_tensor(parameter)
        value = torch.arange(float(parameter.numel())).reshape(parameter.shape)
        with torch.no_grad():
            backend.fill(parameter, Saved(value))
        assert torch.equal(backend.gather(parameter).detach(), value)
        found[name] = {
            "title": backend.title,
            "shape": list(backend.whole_shape(parameter)),
            "own": backend.own_values(parameter).tolist(),
            "held": local_part(parameter).numel(),
        }
        parameter.grad = torch.ones_like(parameter)
    found["norm"] = gradient_norm(layer.parameters()).item()
    dist.destroy_process_group()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("shape", [[2], [2, 2], [4]], ids=["two shards", "two replicas of two shards", "four shards"])
def test_each_rank_fills_and_counts_its_own_rows(shape: list[int]):
    num_processes = shape[0] * shape[-1] if len(shape) == 2 else shape[0]
    results = run_forked(parts, num_processes, shape=shape).results
    for name, whole in (("weight", [5, 2]), ("bias", [5])):
        of_ranks = [results[rank][name] for rank in range(num_processes)]
        counted = [value for each in of_ranks for value in each["own"]]
        assert sorted(counted) == [float(number) for number in range(len(counted))]
        assert len(counted) == torch.Size(whole).numel()
        assert all(each["shape"] == whole and each["title"] == "FSDP2" for each in of_ranks)
        assert max(each["held"] for each in of_ranks) == sharded_values({name: torch.Size(whole)}, shape[-1])
    assert all(result["sharded"] for result in results.values())
    assert all(result["timeouts"] == [77.0] * len(shape) for result in results.values())
    assert all(result["norm"] == pytest.approx(15**0.5) for result in results.values())


def test_replicas_on_nodes_send_their_own_shard_alone():
    """HSDP with a replica on each node: weights are gathered within it, gradients of a shard summed over the nodes."""
    workload = Workload(
        shapes={"weight": torch.Size([64])},
        largest_unit=64,
        largest_trained_unit=64,
        num_processes=8,
        accumulation=1,
        forward_values=lambda: 64,
        backward_values=lambda: 64,
    )
    config = StrategyConfig(name="fsdp2", fsdp2=FSDP2Options(replicate=2))
    # A quarter of 64 values of 4 bytes, and of two processes' sum each sends (2 - 1) / 2 twice.
    assert FSDP2().plan_bytes_between_nodes(config, workload, 2) == 2 * 16 * 4 // 2
    everywhere = StrategyConfig(name="fsdp2")
    total = FSDP2().plan_bytes_sent(everywhere, workload)
    assert FSDP2().plan_bytes_between_nodes(everywhere, workload, 2) == total // 4
    # Two replicas on four nodes: each spans two.
    assert FSDP2().plan_bytes_between_nodes(config, workload, 4) == FSDP2().plan_bytes_sent(config, workload) // 2
