"""DeepSpeed on the CPU with gloo, for tests: Lightning's strategy refuses to run without a GPU.

Import this before anything that imports DeepSpeed.
"""

import os
from argparse import Namespace
from typing import Any
from unittest.mock import patch

os.environ["DS_ACCELERATOR"] = "cpu"

import deepspeed
from lightning.pytorch import Trainer, strategies

from framework.training.strategies.config import StrategyConfig
from framework.training.strategies.deepspeed import DeepSpeedStrategy


class CPUDeepSpeedStrategy(DeepSpeedStrategy):
    """DeepSpeed's ZeRO on processes with gloo.

    Weights are sharded however small they are: DeepSpeed's threshold would keep all of a tiny model whole.
    """

    def __init__(self, config: StrategyConfig, *, persistence_threshold: int = 0) -> None:
        super().__init__(config)
        self.config["zero_optimization"]["stage3_param_persistence_threshold"] = persistence_threshold
        # Shared memory between processes of a node: needs a compiler and minutes.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

    def setup_environment(self) -> None:
        self.choose_precision()
        # Past the parent's refusal.
        strategies.DDPStrategy.setup_environment(self)

    def setup_distributed(self) -> None:
        self.setup_distributed_anywhere()

    def setup(self, trainer: Trainer) -> None:
        initialize = deepspeed.initialize

        def on_the_cpu(args: Namespace, **options: Any) -> object:
            # The device has no number.
            args.device_rank = self.local_rank
            return initialize(args=args, **options)

        with patch.object(deepspeed, "initialize", on_the_cpu):
            super().setup(trainer)
