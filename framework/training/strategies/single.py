"""One process on one device."""

import torch
from lightning.pytorch import strategies
from lightning.pytorch.strategies import Strategy

from framework.training.checkpoint.strategy import DCPCheckpoints
from framework.training.strategies.backend import Backend, Devices
from framework.training.strategies.config import StrategyConfig
from framework.training.strategies.placement import Placement


class SingleDevice(Backend):
    """One process, without process groups."""

    title = "a single device"

    def make(self, config: StrategyConfig, devices: Devices) -> Strategy:
        return SingleDeviceStrategy(config, devices.of_node[0])


class SingleDeviceStrategy(DCPCheckpoints, strategies.SingleDeviceStrategy):
    """One process on one device."""

    backend = SingleDevice()

    def __init__(self, config: StrategyConfig, device: torch.device) -> None:
        super().__init__(device=device)
        self.parallelism = config

    def placement(self) -> Placement:
        """Where and how the model's blocks are made."""
        return Placement.of(self.parallelism, self.root_device)
