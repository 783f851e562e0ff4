"""What `framework plan` asks and answers: records that a method's plan is made of and filled into."""

from dataclasses import dataclass
from typing import Literal

from framework.training.strategies.config import StrategyConfig

Precision = Literal["32-true", "bf16-mixed"]


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """What is planned, besides the model.

    Attributes:
        strategy: how the model is spread over processes, one a device.
        num_devices: of all nodes together.
        num_nodes: over which they are spread evenly.
        micro_batch: samples in a forward pass of one process.
        accumulation: micro-batches of an optimizer step.
        precision: of the matrix products; weights are kept in float32.
    """

    strategy: StrategyConfig
    num_devices: int
    micro_batch: int
    accumulation: int = 1
    precision: Precision = "bf16-mixed"
    num_nodes: int = 1

    @property
    def global_batch(self) -> int:
        """Samples of an optimizer step."""
        return self.num_devices * self.micro_batch * self.accumulation


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on the device that holds most.

    Attributes:
        parameters: the weights, with the model's tables.
        gradients: as they are after the backward pass.
        optimizer: AdamW's moments, a master copy where the strategy keeps one, and the step counters (on the host).
        ema: the averaged weights.
        activations: what a micro-batch keeps for its backward pass, with weights cast by autocast.
        buffers: gathered blocks and buckets of gradients in flight.
        host: of these, what is kept in the host's memory instead.
        peak: the most that is in use at a time, with what runs besides.
    """

    parameters: int
    gradients: int
    optimizer: int
    ema: int
    activations: int
    buffers: int
    host: int
    peak: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run needs.

    Attributes:
        run: what was planned.
        num_parameters: of the model, those that only training needs included.
        memory: bytes on each device.
        flops_per_sample: operations of a forward and a backward pass on a sample, without recomputation.
        bytes_sent: bytes that each process sends in an optimizer step.
        bytes_between_nodes: of these, what each sends to other nodes.
        bytes_read: what each device reads of its own memory in an optimizer step, where that may take longer than the
            arithmetic: of a language model that generates token by token.
        checkpoint_bytes: of a checkpoint, all files together.
        num_frozen: of the parameters, those that do not learn.
    """

    run: PlannedRun
    num_parameters: int
    memory: Memory
    flops_per_sample: int
    bytes_sent: int
    bytes_between_nodes: int = 0
    bytes_read: int = 0
    checkpoint_bytes: int = 0
    num_frozen: int = 0

    @property
    def num_trained(self) -> int:
        """Of the parameters, those that learn."""
        return self.num_parameters - self.num_frozen

    @property
    def flops_per_step(self) -> int:
        """Operations of an optimizer step on all devices."""
        return self.flops_per_sample * self.run.global_batch

    def fits(self, memory_bytes: int) -> bool:
        """Whether a device of so much memory holds it."""
        return self.memory.peak <= memory_bytes
