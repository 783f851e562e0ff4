"""What a run needs of its devices: memory, operations and communication, before anything is started.

Everything is counted from shapes on the meta device and from fake tensors; no data, weights or GPU are needed.
"""

import math
from dataclasses import dataclass

import torch
from torch import Size

from framework.pra.loss import ObjectiveConfig
from framework.pra.network.config import PRAConfig
from framework.pra.network.model import PRA
from framework.pra.planning.flops import (
    CostPrecision,
    calls_of_parameters,
    saved_tensors,
    training_flops_per_image,
    unit_of,
)
from framework.tracking.devices import GIB
from framework.training.strategies.config import StrategyConfig

_FLOAT = 4
_RUNTIME = 1 * GIB
"""What the driver, the communication library and torch's allocator take besides (ours: about so much on an H100)."""
_BUCKET = 200_000_000
"""Values of DeepSpeed's buckets of gradients, as Lightning sets them."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is planned.

    Attributes:
        architecture: the model.
        objective: what is minimised.
        strategy: how it is spread over processes, one a device.
        num_devices: of all nodes together.
        micro_batch: images in a forward pass of one process.
        accumulation: micro-batches of an optimizer step.
        precision: of the matrix products; weights are kept in float32.
    """

    architecture: PRAConfig
    objective: ObjectiveConfig
    strategy: StrategyConfig
    num_devices: int
    micro_batch: int
    accumulation: int = 1
    precision: CostPrecision = "bf16-mixed"


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on the device that holds most.

    Attributes:
        parameters: the weights, with the model's tables.
        gradients: as they are after the backward pass.
        optimizer: AdamW's moments, the master copy that DeepSpeed keeps, and the step counters (on the host).
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
        num_parameters: of the model, the training-only encoder included.
        memory: bytes on each device.
        flops_per_image: operations of a forward and a backward pass on an image, without recomputation.
        flops_per_step: of an optimizer step on all devices.
        bytes_sent: bytes that each process sends in an optimizer step.
    """

    run: Run
    num_parameters: int
    memory: Memory
    flops_per_image: int
    flops_per_step: int
    bytes_sent: int

    @property
    def global_batch(self) -> int:
        """Images of an optimizer step."""
        return self.run.num_devices * self.run.micro_batch * self.run.accumulation

    def fits(self, memory_bytes: int) -> bool:
        """Whether a device of so much memory holds it."""
        return self.memory.peak <= memory_bytes


def make_plan(run: Run) -> Plan:
    """Count what a run needs."""
    with torch.device("meta"):
        model = PRA(run.architecture)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    tables = sum(buffer.numel() for buffer in model.buffers())
    _, per_image = training_flops_per_image(run.architecture, run.objective)
    images = run.num_devices * run.micro_batch * run.accumulation
    units = model.units()
    largest: dict[str, int] = {}
    for name, shape in shapes.items():
        unit = unit_of(name, units)
        largest[unit] = largest.get(unit, 0) + shape.numel()
    return Plan(
        run=run,
        num_parameters=sum(shape.numel() for shape in shapes.values()),
        memory=_memory(run, shapes, tables, max(largest.values())),
        flops_per_image=per_image,
        flops_per_step=per_image * images,
        bytes_sent=_bytes_sent(run, shapes),
    )


def sharded_values(shapes: dict[str, Size], shards: int) -> int:
    """Values of the rank that holds most when every parameter is split along its first axis, as FSDP2 does."""
    return sum(math.ceil(shape[0] / shards) * shape[1:].numel() for shape in shapes.values())


@dataclass(frozen=True, kw_only=True)
class _Share:
    """What the process that holds most has, in float32 values.

    Attributes:
        hosted: names of those that are in the host's memory.
        buffers: bytes of gathered blocks and of gradients in flight.
        casts: autocast makes copies of the weights.
    """

    parameters: int
    gradients: int
    optimizer: int
    ema: int
    hosted: tuple[str, ...] = ()
    buffers: int = 0
    casts: bool = True


def _share(run: Run, shapes: dict[str, Size], largest_unit: int) -> _Share:
    whole, num = sum(shape.numel() for shape in shapes.values()), run.num_devices
    if run.strategy.name == "ddp":
        return _Share(parameters=whole, gradients=whole, optimizer=2 * whole, ema=whole)
    if run.strategy.name == "fsdp2":
        options = run.strategy.fsdp2
        mine = sharded_values(shapes, num // options.replicate)
        width = 2 if options.param_dtype == "bfloat16" else _FLOAT
        # One block is used while the next is gathered; one gradient is made while the last is summed.
        buffers = 2 * width * largest_unit if options.reshard_after_forward else width * whole
        buffers += 2 * _FLOAT * largest_unit
        if run.accumulation > 1 and options.accumulation == "whole":
            buffers += _FLOAT * whole
        return _Share(
            parameters=mine,
            gradients=mine,
            optimizer=2 * mine,
            ema=mine,
            hosted=("parameters", "gradients", "optimizer", "ema") if options.cpu_offload else (),
            buffers=buffers,
            casts=options.param_dtype == "float32",
        )
    options, mine = run.strategy.deepspeed, math.ceil(whole / num)
    # Stage 3 keeps weights that are used again within a thousand million values.
    gathered = min(1_000_000_000, whole) if options.stage == 3 else 0
    hosted = ("optimizer",) if options.offload_optimizer else ()
    return _Share(
        parameters=mine if options.stage == 3 else whole,
        gradients=mine if options.stage >= 2 else whole,
        optimizer=3 * mine,
        ema=mine if options.stage == 3 else whole,
        hosted=(*hosted, "parameters", "ema") if options.offload_parameters else hosted,
        buffers=_FLOAT * (2 * min(_BUCKET, whole) + gathered),
    )


def _memory(run: Run, shapes: dict[str, Size], tables: int, largest_unit: int) -> Memory:
    share = _share(run, shapes, largest_unit)
    saved = saved_tensors(
        run.architecture,
        run.objective,
        micro_batch=run.micro_batch,
        precision=run.precision,
        activation_checkpointing=run.strategy.activation_checkpointing,
    )
    values = {name: getattr(share, name) for name in ("parameters", "gradients", "optimizer", "ema")}
    here = {name: 0 if name in share.hosted else _FLOAT * value for name, value in values.items()}
    activations = saved.activations + saved.weight_copies * share.casts
    # Gradients that live in buckets, or that several micro-batches add to, are there all the time.
    lasting = (run.num_devices > 1 and run.strategy.name != "fsdp2") or run.accumulation > 1
    backward = activations + share.buffers + here["gradients"] * lasting
    # The optimizer takes the root of the second moments into a tensor of its own.
    update = here["gradients"] + here["optimizer"] // 2
    fixed = here["parameters"] + here["ema"] + here["optimizer"] + 2 * _FLOAT * tables
    return Memory(
        parameters=_FLOAT * (share.parameters + tables),
        gradients=_FLOAT * share.gradients,
        optimizer=_FLOAT * (share.optimizer + len(shapes)),
        ema=_FLOAT * (share.ema + tables),
        activations=activations,
        buffers=share.buffers,
        host=_FLOAT * sum(values[name] for name in share.hosted),
        peak=fixed + max(backward, update) + _RUNTIME,
    )


def _bytes_sent(run: Run, shapes: dict[str, Size]) -> int:
    """With rings: a gathering or a scattering sum of b bytes over n processes sends (n - 1) / n b, a sum twice that."""
    num, name = run.num_devices, run.strategy.name
    whole = sum(shape.numel() for shape in shapes.values())
    if num == 1:
        return 0

    def ring(values: int, size: int = _FLOAT, processes: int = num) -> float:
        return values * size * (processes - 1) / processes

    if name == "ddp" or (name == "deepspeed" and run.strategy.deepspeed.stage < 3):
        return round(2 * ring(whole))
    calls = calls_of_parameters(run.architecture, run.objective)
    forward = sum(calls[parameter] * shape.numel() for parameter, shape in shapes.items())
    if name == "deepspeed":
        return round(run.accumulation * (2 * ring(whole) + ring(whole)))
    options = run.strategy.fsdp2
    shards = num // options.replicate
    width = 2 if options.param_dtype == "bfloat16" else _FLOAT
    reduced = 2 if options.reduce_dtype == "bfloat16" else _FLOAT
    gathered = 2 * forward if options.reshard_after_forward else whole
    sums = run.accumulation if options.accumulation == "sharded" else 1
    sent = run.accumulation * ring(gathered, width, shards) + sums * ring(whole, reduced, shards)
    return round(sent + 2 * ring(math.ceil(whole / shards), reduced, options.replicate))
