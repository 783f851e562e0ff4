"""AdamW with groups chosen by parameter tags, and its learning-rate schedule."""

import math
from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from framework.errors import ConfigError
from framework.tags import NO_DECAY, tags_of


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW and its schedule.

    Args:
        learning_rate: peak learning rate.
        betas: AdamW's decay rates of the moments.
        weight_decay: decoupled weight decay; not applied to parameters tagged `no_decay`.
        warmup_steps: optimizer steps of linear warm-up from 0.
        schedule: what follows the warm-up: `constant`, or a `cosine` to `final_fraction` of the peak at the last step.
        final_fraction: fraction of the peak that the cosine ends at.
    """

    learning_rate: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    warmup_steps: int = 1000
    schedule: Literal["constant", "cosine"] = "constant"
    final_fraction: float = 0.0

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ConfigError(f"learning_rate {self.learning_rate}", mend="use a positive number")
        if self.warmup_steps < 0:
            raise ConfigError(f"warmup_steps {self.warmup_steps}", mend="use 0 or more")


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> AdamW:
    """AdamW over the model's trainable parameters in two groups, if neither is empty: with weight decay, and tagged
    `no_decay`."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    decay = [p for p in trainable if NO_DECAY not in tags_of(p)]
    no_decay = [p for p in trainable if NO_DECAY in tags_of(p)]
    groups = [
        {"params": decay, "weight_decay": config.weight_decay},
        {"params": no_decay, "weight_decay": 0.0},
    ]
    # Some engines drop empty groups, and then schedules do not fit.
    return AdamW([group for group in groups if group["params"]], lr=config.learning_rate, betas=config.betas)


def learning_rate_factor(step: int, config: OptimizerConfig, total_steps: int) -> float:
    """Factor on the peak learning rate for the optimizer step number `step` (from 0), in [0, 1]."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    progress = min(1.0, (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps))
    return config.final_fraction + (1 - config.final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))


def build_schedule(optimizer: AdamW, config: OptimizerConfig, total_steps: int) -> LambdaLR:
    """Warm-up and then constant or cosine, one step for each optimizer step.

    Raises:
        ConfigError: a cosine over a run without a known length.
    """
    if config.schedule == "cosine" and total_steps <= 0:
        raise ConfigError("a cosine schedule in a run without an end", mend="set trainer.max_steps")
    return LambdaLR(optimizer, lambda step: learning_rate_factor(step, config, total_steps))
