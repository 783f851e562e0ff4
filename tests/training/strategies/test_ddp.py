"""Data parallelism, apart from a training: its plan by hand, and what it is on one process."""

import torch

from framework.training.strategies.backend import Devices, backend_of_strategy
from framework.training.strategies.config import StrategyConfig
from framework.training.strategies.ddp import DDP, DDPStrategy
from framework.training.strategies.single import SingleDeviceStrategy
from framework.training.strategies.workload import ProcessShare, Workload

CPU = torch.device("cpu")


def test_one_process_has_no_process_group():
    assert isinstance(DDP().make(StrategyConfig(), Devices(of_node=(CPU,))), SingleDeviceStrategy)
    strategy = DDP().make(StrategyConfig(), Devices(of_node=(CPU,), num_nodes=2))
    assert isinstance(strategy, DDPStrategy)
    assert backend_of_strategy(strategy) is DDPStrategy.backend


def test_every_process_holds_everything_and_sums_the_gradient_once():
    shapes = {"weight": torch.Size([2, 3]), "bias": torch.Size([2])}
    workload = Workload(
        shapes=shapes,
        largest_unit=8,
        largest_trained_unit=8,
        num_processes=4,
        accumulation=3,
        forward_values=lambda: 8,
        backward_values=lambda: 8,
    )
    # 8 values, and two moments of each.
    assert DDP().plan_share(StrategyConfig(), workload) == ProcessShare(parameters=8, gradients=8, optimizer=16, ema=8)
    # A sum that all get: twice (n - 1) / n of 8 * 4 bytes, whatever the accumulation.
    assert DDP().plan_bytes_sent(StrategyConfig(), workload) == 2 * 32 * 3 // 4


def test_a_ring_enters_and_leaves_a_node_once():
    workload = Workload(
        shapes={"weight": torch.Size([8])},
        largest_unit=8,
        largest_trained_unit=8,
        num_processes=4,
        accumulation=1,
        forward_values=lambda: 8,
        backward_values=lambda: 8,
    )
    assert DDP().plan_bytes_between_nodes(StrategyConfig(), workload, 1) == 0
    # The two processes of a node share its connection.
    assert DDP().plan_bytes_between_nodes(StrategyConfig(), workload, 2) == 2 * 32 * 3 // 4 // 2
