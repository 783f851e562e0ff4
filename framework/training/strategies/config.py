"""How a run is spread over processes: one config value with typed options, and the table of strategies.

A new strategy is a file with a `Backend` (`framework.training.strategies.backend`) and its line in the table here; its
options, if it has some, are a field of `StrategyConfig` that has its name.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal

from framework.core.errors import ConfigError

StrategyName = Literal["ddp", "fsdp2", "deepspeed"]
CheckpointKind = Literal["dcp", "deepspeed"]
FloatType = Literal["float32", "bfloat16"]
Compiled = bool | Literal["whole"]
"""What torch.compile makes one graph of: nothing, each block (true), or noise and loss of a step."""

STRATEGIES: dict[str, str] = {
    "ddp": "framework.training.strategies.ddp:DDP",
    "fsdp2": "framework.training.strategies.fsdp2:FSDP2",
    "deepspeed": "framework.training.strategies.deepspeed:DeepSpeed",
}
"""What implements each strategy: module and class."""
CHECKPOINT_READERS: dict[CheckpointKind, str] = {
    "dcp": "framework.training.checkpoint.tensors:read_dcp",
    "deepspeed": "framework.training.strategies.deepspeed_files:read_deepspeed",
}
"""What reads each kind of tensor files without a trainer: module and function."""
PACKAGES = ("deepspeed",)
"""Packages besides torch and lightning whose versions checkpoints depend on."""


@dataclass(frozen=True, kw_only=True)
class FSDP2Options:
    """Options of fully sharded data parallelism (torch's `fully_shard`).

    Args:
        replicate: copies of the sharded model (HSDP): processes / replicate hold one copy together; best the number of
            nodes, so that weights are only gathered within a node. 1 shards over all processes.
        reshard_after_forward: free a block's gathered weights after its forward pass and gather them again for the
            backward pass; false keeps them: less communication, more memory.
        cpu_offload: keep weights, gradients and the optimizer's state in the host's memory; the optimizer's step runs
            there.
        param_dtype: type in which weights are gathered and used; `bfloat16` halves that communication, and every
            operation of a block then runs in it. The sharded weights stay in the precision of the trainer.
        reduce_dtype: type in which gradients are summed over processes.
        accumulation: with accumulated micro-batches, `whole` communicates gradients once for an optimizer step and
            keeps them whole on every rank until then; `sharded` sums them over the shards for every micro-batch (over
            replicas once) and never holds them whole.
    """

    replicate: int = 1
    reshard_after_forward: bool = True
    cpu_offload: bool = False
    param_dtype: FloatType = "float32"
    reduce_dtype: FloatType = "float32"
    accumulation: Literal["whole", "sharded"] = "whole"

    def __post_init__(self) -> None:
        if self.replicate < 1:
            raise ConfigError(f"strategy.fsdp2.replicate {self.replicate}", hint="use 1 or more")


@dataclass(frozen=True, kw_only=True)
class DeepSpeedOptions:
    """Options of DeepSpeed's ZeRO.

    Args:
        stage: what is sharded over processes: 1 the optimizer's state, 2 gradients too, 3 weights too. Stages 2 and 3
            sum gradients over processes for every accumulated micro-batch.
        offload_optimizer: keep the optimizer's state in the host's memory; its step runs there.
        offload_parameters: keep sharded weights in the host's memory (stage 3).
        comm_dtype: type in which the weights of linear layers are gathered and their gradients summed under mixed
            precision.
        persistence_threshold: weights of fewer values than this stay whole on every rank (stage 3).
    """

    stage: Literal[1, 2, 3] = 2
    offload_optimizer: bool = False
    offload_parameters: bool = False
    comm_dtype: FloatType = "float32"
    persistence_threshold: int = 100_000

    def __post_init__(self) -> None:
        if self.offload_parameters and self.stage != 3:
            raise ConfigError(
                f"strategy.deepspeed.offload_parameters with stage {self.stage}",
                hint="use stage 3, which shards them, or leave it out",
            )


@dataclass(frozen=True, kw_only=True)
class StrategyConfig:
    """How a run is spread over processes.

    Args:
        name: `ddp`: the whole model on every process; `fsdp2`: weights, gradients and optimizer sharded by torch;
            `deepspeed`: sharded by DeepSpeed's ZeRO.
        activation_checkpointing: recompute activations in the backward pass: 0 of no block, 1 of every block, n of
            every n-th one.
        compile: by torch.compile. true: each block; `whole`: noise and loss of a training step as one graph, where the
            weights are whole (`ddp`): fewer launches, more seconds at the start, and processes sum gradients only after
            the whole backward pass.
        fsdp2: options of `fsdp2`.
        deepspeed: options of `deepspeed`.
    """

    name: StrategyName = "ddp"
    activation_checkpointing: int = 0
    compile: Compiled = False
    fsdp2: FSDP2Options = field(default_factory=FSDP2Options)
    deepspeed: DeepSpeedOptions = field(default_factory=DeepSpeedOptions)

    def __post_init__(self) -> None:
        if self.activation_checkpointing < 0:
            raise ConfigError(
                f"strategy.activation_checkpointing {self.activation_checkpointing}",
                hint="use 0 for none, 1 for every block, n for every n-th",
            )

    @classmethod
    def of_recipe(cls, section: Mapping[str, Any]) -> "StrategyConfig":
        """The `strategy` section of a parsed recipe, its groups of options as plain values."""
        groups = {each.name: each.default_factory for each in fields(cls) if each.default_factory is not MISSING}
        return cls(**{name: groups[name](**value) if name in groups else value for name, value in section.items()})
