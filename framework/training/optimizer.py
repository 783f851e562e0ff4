"""AdamW or Muon with groups chosen by parameter tags, the learning-rate schedule, and clipping by a norm taken once."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from framework.core.errors import ConfigError
from framework.core.param_tags import NO_DECAY, tags_of
from framework.training.shapes import Scalar
from framework.training.strategies.backend import WHOLE, backend_of_strategy, backend_of_tensor, gradient_norm

_FUSED_DEVICES = ("cpu", "cuda")
"""Where torch has AdamW as one kernel."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """An optimizer and its schedule.

    Args:
        method: `adamw`, or `muon`: orthogonalised momentum (Jordan et al. 2024) for the matrices that decay, with steps
            as large as AdamW's (Liu et al. 2025, arXiv 2502.16982), and AdamW for the rest; for models that every
            process holds whole.
        learning_rate: peak learning rate.
        betas: AdamW's decay rates of the moments.
        weight_decay: decoupled weight decay; not applied to parameters tagged `no_decay`.
        warmup_steps: optimizer steps of linear warm-up from 0.
        schedule: what follows the warm-up: `constant`, or a `cosine` to `final_fraction` of the peak at the last step.
        final_fraction: fraction of the peak that the cosine ends at.
    """

    method: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    warmup_steps: int = 1000
    schedule: Literal["constant", "cosine"] = "constant"
    final_fraction: float = 0.0

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ConfigError(f"learning_rate {self.learning_rate}", hint="use a positive number")
        if self.warmup_steps < 0:
            raise ConfigError(f"warmup_steps {self.warmup_steps}", hint="use 0 or more")
        if not 0 <= self.final_fraction <= 1:
            raise ConfigError(f"final_fraction {self.final_fraction}", hint="use a fraction of the peak, from 0 to 1")


class MuonAdamW(Optimizer):
    """torch's Muon for the groups of matrices and its AdamW for the others, as one optimizer with one state.

    Args:
        matrices: groups for Muon, all of its options in them.
        others: groups for AdamW.
    """

    def __init__(self, matrices: list[dict[str, object]], others: list[dict[str, object]]) -> None:
        self.parts = (Muon(matrices), *([AdamW(others)] if others else []))
        super().__init__([group for part in self.parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], object] | None = None) -> object:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # A loaded state brings groups and a state of its own.
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups, part.state = [next(groups) for _ in part.param_groups], self.state
            part.step()
        return loss


def steps_itself(trainer: Trainer) -> bool:
    """Whether the optimizer gets gradients as they are: no engine takes its step, no loss scaler has scaled them."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return backend_of_strategy(trainer.strategy).sees_gradients and scaler is None


def skips_by_flag(optimizer: Optimizer) -> bool:
    """Whether the optimizer leaves weights and moments alone where its `found_inf` is 1, without asking the host."""
    return isinstance(optimizer, AdamW) and all(group["fused"] for group in optimizer.param_groups)


def build_optimizer(model: nn.Module, config: OptimizerConfig, *, fused: bool = True) -> Optimizer:
    """The optimizer over the model's trainable parameters, with weight decay and, tagged `no_decay`, without.

    Empty groups are left out. A run that goes on from a checkpoint keeps the kernels that it was begun with.

    Args:
        model: whose parameters.
        config: method, rates and decay.
        fused: AdamW is one kernel for all tensors, sharded ones too, in place of several for each; see `steps_itself`.

    Raises:
        ConfigError: Muon for weights that are sharded or not matrices, or for none.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    decay = [p for p in trainable if NO_DECAY not in tags_of(p)]
    no_decay = [p for p in trainable if NO_DECAY in tags_of(p)]
    rate = {"lr": config.learning_rate}
    first = {"params": decay, "weight_decay": config.weight_decay, **rate}
    # Some engines drop empty groups, and then schedules do not fit.
    groups = [
        {**group, "betas": config.betas}
        for group in (first, {"params": no_decay, "weight_decay": 0.0, **rate})
        if group["params"]
    ]
    # By itself torch takes sharded tensors one by one.
    if config.method == "adamw":
        return AdamW(groups, fused=(fused and all(p.device.type in _FUSED_DEVICES for p in trainable)) or None)
    if not decay or any(backend_of_tensor(p).holds(p) or p.ndim != 2 for p in decay):
        hint = f"use strategy {WHOLE}, or method adamw"
        raise ConfigError("optimizer method muon over weights that are sharded or not matrices", hint=hint)
    return MuonAdamW([{**first, "adjust_lr_fn": "match_rms_adamw"}], groups[1:])


class ClippingModule(LightningModule):
    """Clips gradients by the norm that the guard has already taken; by one of its own where there is no guard.

    Attributes:
        step_norm: of the gradient of this step, before clipping; whoever measures it puts it here.
    """

    step_norm: Scalar | None = None

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Lightning's hook between the backward pass and the step.

        Args:
            optimizer: whose parameters' gradients are clipped.
            gradient_clip_val: largest norm, or value; None or 0 for no clipping.
            gradient_clip_algorithm: `norm`, the default, or `value`.
        """
        norm, self.step_norm = self.step_norm, None
        if not gradient_clip_val:
            return
        if not steps_itself(self.trainer):
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if gradient_clip_algorithm == "value":
            torch.nn.utils.clip_grad_value_(parameters, gradient_clip_val)
            return
        norm = gradient_norm(self.parameters()) if norm is None else norm
        # By itself torch takes sharded tensors one by one.
        foreach = True if norm.device.type == "cuda" else None
        torch.nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm, foreach=foreach)


def learning_rate_factor(step: int, config: OptimizerConfig, total_steps: int) -> float:
    """Factor on the peak learning rate, in [0, 1].

    Args:
        step: the optimizer step that is to be taken, from 0.
        config: of the schedule.
        total_steps: optimizer steps of the run; only a cosine needs it.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    progress = min(1.0, (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps))
    return config.final_fraction + (1 - config.final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))


def misfit_of_schedule(config: OptimizerConfig, total_steps: int) -> str | None:
    """What of a schedule has no effect in a run of this length, such as a warm-up that outlasts it; None if all has.

    Args:
        config: of the schedule.
        total_steps: optimizer steps of the run; 0 or less where it has no end.
    """
    warmup = config.warmup_steps
    if config.schedule == "constant" and config.final_fraction:
        return f"final_fraction {config.final_fraction} changes nothing, the schedule being constant, not cosine"
    if total_steps <= 0 or warmup < total_steps or (config.schedule == "constant" and warmup == total_steps):
        return None
    share = learning_rate_factor(total_steps - 1, config, total_steps)
    told = f"warmup_steps {warmup} end after the run: the learning rate rises to {share:.3g} of learning_rate"
    return told if config.schedule == "constant" else f"{told}, and the cosine never begins"


def build_schedule(optimizer: Optimizer, config: OptimizerConfig, total_steps: int) -> LambdaLR:
    """Warm-up and then constant or cosine, one step for each optimizer step.

    Args:
        optimizer: whose rates it sets.
        config: of the schedule.
        total_steps: optimizer steps of the run (`framework.training.length`); 0 or less where it has no end.

    Raises:
        ConfigError: a cosine over a run without a known length.
    """
    if config.schedule == "cosine" and total_steps <= 0:
        raise ConfigError(
            "a cosine schedule in a run without an end", hint="set trainer.max_steps or trainer.max_epochs"
        )
    return LambdaLR(optimizer, lambda step: learning_rate_factor(step, config, total_steps))
