"""A process of a distributed run ends with its own exit code."""

import pytest
import torch
import torch.distributed as dist

from framework.testing.processes.distributed import run_distributed
from framework.training.strategies.build import make_strategy
from framework.training.strategies.config import StrategyConfig


def leave_work_behind() -> None:
    """Ends while threads of the process group still hold tensors that nobody else does."""
    make_strategy(StrategyConfig(), accelerator="cpu", devices=2)
    dist.init_process_group("gloo")
    for _ in range(8):
        dist.all_reduce(torch.ones(300_000), async_op=True)


@pytest.mark.slow
def test_collectives_that_end_late_do_not_abort_the_process():
    assert run_distributed(leave_work_behind, 2).returncode == 0
