"""What a run needs of its devices: memory, operations and communication, before anything is started.

Everything is counted from shapes on the meta device and from fake tensors; no data, weights or GPU are needed.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Size

from framework.pra.loss import ObjectiveConfig
from framework.pra.network.build import build_generator, check_parts, train_only
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

_KEPT_VALUES, _KEPT_MOMENTS = 2, 2
"""That a checkpoint holds of each parameter: the weight and the average, and AdamW's moments of each that learns."""
_RUNTIME = 1 * GIB
"""What the driver, the communication library and torch's allocator take besides (ours: about so much on an H100)."""


@dataclass(frozen=True, kw_only=True)
class Run(PlannedRun):
    """What is planned.

    Attributes:
        architecture: the model.
        objective: what is minimised.
        trainable: parts of the model that learn; all by default.
    """

    architecture: PRAConfig
    objective: ObjectiveConfig
    trainable: tuple[str, ...] | None = None


def plan_recipe(model: Mapping[str, Any], run: PlannedRun) -> Plan:
    """What a recipe needs.

    Args:
        model: its `model.init_args`.
        run: the rest of what is planned.

    Raises:
        ConfigError: `trainable` names parts that the model does not have.
    """
    given = {field.name: getattr(run, field.name) for field in fields(PlannedRun)}
    architecture, objective = PRAConfig(**model["architecture"]), ObjectiveConfig(**model["objective"])
    trainable = model.get("trainable")
    if trainable is not None:
        check_parts(architecture, trainable)
        trainable = tuple(trainable)
    return make_plan(Run(architecture=architecture, objective=objective, trainable=trainable, **given))


def make_plan(run: Run) -> Plan:
    """Count what a run needs."""
    with torch.device("meta"):
        model = build_generator(run.architecture)
    train_only(model, run.trainable)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    tables = sum(buffer.numel() for buffer in model.buffers())
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    _, per_image = training_flops_per_image(run.architecture, run.objective, run.trainable)
    backend, workload = named_backend(run.strategy.name), _workload(run, shapes, frozen, list(model.units()))
    return Plan(
        run=run,
        num_parameters=workload.num_values,
        num_frozen=workload.num_values - workload.num_trained,
        memory=_memory(run, backend.plan_share(run.strategy, workload), len(workload.trained_shapes), tables),
        flops_per_sample=per_image,
        bytes_sent=backend.plan_bytes_sent(run.strategy, workload) if run.num_devices > 1 else 0,
        bytes_between_nodes=backend.plan_bytes_between_nodes(run.strategy, workload, run.num_nodes),
        checkpoint_bytes=FLOAT_BYTES * (_KEPT_VALUES * workload.num_values + _KEPT_MOMENTS * workload.num_trained),
    )


def _workload(run: Run, shapes: dict[str, Size], frozen: Collection[str], units: Collection[str]) -> Workload:
    """What is spread over processes.

    Args:
        run: what is planned.
        shapes: of the parameters, by name.
        frozen: names of those that do not learn.
        units: names of the modules that are sharded one by one.
    """
    whole, trained = Counter[str](), Counter[str]()
    for name, shape in shapes.items():
        whole[unit_of(name, units)] += shape.numel()
        trained[unit_of(name, units)] += shape.numel() * (name not in frozen)

    calls_of_run = partial(calls_of_parameters, run.architecture, run.objective, run.trainable)

    def gathered(calls: Mapping[str, int]) -> int:
        return sum(calls[parameter] * shape.numel() for parameter, shape in shapes.items())

    return Workload(
        shapes=shapes,
        frozen=frozen,
        largest_unit=max(whole.values()),
        largest_trained_unit=max(trained.values()),
        num_processes=run.num_devices,
        accumulation=run.accumulation,
        forward_values=lambda: gathered(calls_of_run().forward),
        backward_values=lambda: gathered(calls_of_run().backward),
    )


def _memory(run: Run, share: ProcessShare, num_trained: int, tables: int) -> Memory:
    """What that share takes on the device, with what every strategy has.

    Args:
        run: what is planned.
        share: of the process that holds most.
        num_trained: how many tensors the optimizer counts the steps of.
        tables: values of the model's buffers.
    """
    saved = saved_tensors(
        run.architecture,
        run.objective,
        micro_batch=run.micro_batch,
        precision=run.precision,
        activation_checkpointing=run.strategy.activation_checkpointing,
        trainable=run.trainable,
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
        optimizer=FLOAT_BYTES * (share.optimizer + num_trained),
        ema=FLOAT_BYTES * (share.ema + tables),
        activations=activations,
        buffers=share.buffers,
        host=FLOAT_BYTES * sum(values[name] for name in share.hosted),
        peak=fixed + max(backward, update) + _RUNTIME,
    )
