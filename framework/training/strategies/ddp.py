"""Data parallelism: the whole model on every process."""

from lightning.pytorch import strategies
from lightning.pytorch.strategies import Strategy

from framework.core.compat.torch_compat import compile_without_buckets
from framework.training.checkpoint.strategy import DCPCheckpoints
from framework.training.strategies.backend import Backend, Devices
from framework.training.strategies.config import StrategyConfig
from framework.training.strategies.placement import Placement
from framework.training.strategies.single import SingleDevice


class DDP(Backend):
    """The whole model on every process; on one process, `single`."""

    title = "DDP"
    lighter = "fsdp2"

    def make(self, config: StrategyConfig, devices: Devices) -> Strategy:
        if devices.num_processes == 1:
            return SingleDevice().make(config, devices)
        return DDPStrategy(config)


class DDPStrategy(DCPCheckpoints, strategies.DDPStrategy):
    """The whole model on every process; gradients are averaged, for accumulated micro-batches once."""

    backend = DDP()

    def __init__(self, config: StrategyConfig) -> None:
        # The buffers are tables, equal everywhere.
        super().__init__(gradient_as_bucket_view=True, broadcast_buffers=False)
        self.parallelism = config
        if config.compile:
            compile_without_buckets()

    def placement(self) -> Placement:
        """Where and how the model's blocks are made."""
        return Placement.of(self.parallelism, self.root_device)
