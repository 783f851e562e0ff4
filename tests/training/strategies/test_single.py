"""One process on one device: which one, and what of the config it takes."""

import torch

from framework.training.strategies.backend import Devices, backend_of_strategy
from framework.training.strategies.config import StrategyConfig
from framework.training.strategies.single import SingleDevice, SingleDeviceStrategy


def test_the_first_device_is_taken_and_nothing_is_sharded():
    config = StrategyConfig(activation_checkpointing=2, compile=True)
    devices = Devices(of_node=(torch.device("cpu"), torch.device("meta")))
    strategy = SingleDevice().make(config, devices)
    assert isinstance(strategy, SingleDeviceStrategy)
    assert backend_of_strategy(strategy) is SingleDeviceStrategy.backend
    placement = strategy.placement()
    assert placement.device == torch.device("cpu")
    assert (placement.activation_checkpointing, placement.compile, placement.shard) == (2, True, None)
