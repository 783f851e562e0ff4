"""What a run needs of its devices: memory, operations and communication, before anything is started.

Everything is counted from shapes on the meta device and from fake tensors; no data, weights or GPU are needed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Size

from framework.pra.loss import ObjectiveConfig
from framework.pra.network.build import build_generator
from framework.pra.network.config import PRAConfig
from framework.pra.planning.flops import (
    calls_of_parameters,
    saved_tensors,
    training_flops_per_image,
    unit_of,
)
from framework.tracking.devices import GIB
from framework.training.planning import Memory, Plan, PlannedRun
from framework.training.strategies.backend import named_backend
from framework.training.strategies.workload import FLOAT_BYTES, ProcessShare, Workload

_KEPT_VALUES = 4
"""That a checkpoint holds of each parameter: the weight, AdamW's two moments, the average."""
_RUNTIME = 1 * GIB
"""What the driver, the communication library and torch's allocator take besides (ours: about so much on an H100)."""


@dataclass(frozen=True, kw_only=True)
class Run(PlannedRun):
    """What is planned.

    Attributes:
        architecture: the model.
        objective: what is minimised.
    """

    architecture: PRAConfig
    objective: ObjectiveConfig


def plan_recipe(model: Mapping[str, Any], run: PlannedRun) -> Plan:
    """What a recipe needs.

    Args:
        model: its `model.init_args`.
        run: the rest of what is planned.
    """
    given = {field.name: getattr(run, field.name) for field in fields(PlannedRun)}
    architecture, objective = PRAConfig(**model["architecture"]), ObjectiveConfig(**model["objective"])
    return make_plan(Run(architecture=architecture, objective=objective, **given))


def make_plan(run: Run) -> Plan:
    """Count what a run needs."""
    with torch.device("meta"):
        model = build_generator(run.architecture)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    tables = sum(buffer.numel() for buffer in model.buffers())
    _, per_image = training_flops_per_image(run.architecture, run.objective)
    units = model.units()
    largest: dict[str, int] = {}
    for name, shape in shapes.items():
        unit = unit_of(name, units)
        largest[unit] = largest.get(unit, 0) + shape.numel()
    backend, workload = named_backend(run.strategy.name), _workload(run, shapes, max(largest.values()))
    return Plan(
        run=run,
        num_parameters=workload.num_values,
        memory=_memory(run, backend.plan_share(run.strategy, workload), len(shapes), tables),
        flops_per_sample=per_image,
        bytes_sent=backend.plan_bytes_sent(run.strategy, workload) if run.num_devices > 1 else 0,
        bytes_between_nodes=backend.plan_bytes_between_nodes(run.strategy, workload, run.num_nodes),
        checkpoint_bytes=FLOAT_BYTES * _KEPT_VALUES * workload.num_values,
    )


def _workload(run: Run, shapes: dict[str, Size], largest_unit: int) -> Workload:
    def forward_values() -> int:
        calls = calls_of_parameters(run.architecture, run.objective)
        return sum(calls[parameter] * shape.numel() for parameter, shape in shapes.items())

    return Workload(
        shapes=shapes,
        largest_unit=largest_unit,
        num_processes=run.num_devices,
        accumulation=run.accumulation,
        forward_values=forward_values,
    )


def _memory(run: Run, share: ProcessShare, num_parameters: int, tables: int) -> Memory:
    """What that share takes on the device, with what every strategy has.

    Args:
        run: what is planned.
        share: of the process that holds most.
        num_parameters: how many tensors the optimizer counts the steps of.
        tables: values of the model's buffers.
    """
    saved = saved_tensors(
        run.architecture,
        run.objective,
        micro_batch=run.micro_batch,
        precision=run.precision,
        activation_checkpointing=run.strategy.activation_checkpointing,
    )
    values = {name: getattr(share, name) for name in ("parameters", "gradients", "optimizer", "ema")}
    here = {name: 0 if name in share.hosted else FLOAT_BYTES * value for name, value in values.items()}
    activations = saved.activations + saved.weight_copies * share.casts
    # Gradients that live in buckets, or that several micro-batches add to, are there all the time.
    lasting = (run.num_devices > 1 and share.buckets) or run.accumulation > 1
    backward = activations + share.buffers + here["gradients"] * lasting
    # Our AdamW is one kernel in place; an engine's takes the root of the second moments into a tensor of its own.
    fused = named_backend(run.strategy.name).sees_gradients
    update = here["gradients"] + here["optimizer"] // 2 * (not fused)
    fixed = here["parameters"] + here["ema"] + here["optimizer"] + 2 * FLOAT_BYTES * tables
    return Memory(
        parameters=FLOAT_BYTES * (share.parameters + tables),
        gradients=FLOAT_BYTES * share.gradients,
        optimizer=FLOAT_BYTES * (share.optimizer + num_parameters),
        ema=FLOAT_BYTES * (share.ema + tables),
        activations=activations,
        buffers=share.buffers,
        host=FLOAT_BYTES * sum(values[name] for name in share.hosted),
        peak=fixed + max(backward, update) + _RUNTIME,
    )
