"""Fully sharded data parallelism by torch's `fully_shard`: weights, gradients and optimizer in parts, as DTensors."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import Strategy
from torch import Size, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from framework.core.compat.lightning_compat import OpenModelParallelStrategy
from framework.core.compat.torch_compat import set_timeout, split_quietly
from framework.core.errors import ConfigError
from framework.training.checkpoint.strategy import DCPCheckpoints
from framework.training.shapes import AnyTensor, Held, Part, Values, Whole
from framework.training.strategies.backend import Backend, Devices, ShardedLayer, TensorSource
from framework.training.strategies.config import StrategyConfig
from framework.training.strategies.placement import Placement
from framework.training.strategies.workload import FLOAT_BYTES, ProcessShare, Workload, ring_bytes


class FSDP2(Backend):
    """Every parameter is a DTensor, split along its first axis."""

    title = "FSDP2"
    one_graph = False

    # Before a run.

    def make(self, config: StrategyConfig, devices: Devices) -> Strategy:
        if devices.num_processes == 1 and not config.fsdp2.cpu_offload:
            warnings.warn("strategy.name fsdp2 on one process shards nothing; ddp is faster there", stacklevel=3)
        return FSDP2Strategy(config)

    def check_processes(self, config: StrategyConfig, num_processes: int) -> None:
        check_mesh(num_processes, config.fsdp2.replicate)

    def offloaded(self, config: StrategyConfig) -> StrategyConfig:
        return replace(config, fsdp2=replace(config.fsdp2, cpu_offload=True))

    def plan_share(self, config: StrategyConfig, workload: Workload) -> ProcessShare:
        options, whole = config.fsdp2, workload.num_values
        shards = workload.num_processes // options.replicate
        mine = sharded_values(workload.shapes, shards)
        trained = sharded_values(workload.trained_shapes, shards)
        width = 2 if options.param_dtype == "bfloat16" else FLOAT_BYTES
        # One block is used while the next is gathered; one gradient is made while the last is summed.
        buffers = 2 * width * workload.largest_unit if options.reshard_after_forward else width * whole
        buffers += 2 * FLOAT_BYTES * workload.largest_trained_unit
        if workload.accumulation > 1 and options.accumulation == "whole":
            buffers += FLOAT_BYTES * workload.num_trained
        return ProcessShare(
            parameters=mine,
            gradients=trained,
            optimizer=2 * trained,
            ema=mine,
            hosted=("parameters", "gradients", "optimizer", "ema") if options.cpu_offload else (),
            buffers=buffers,
            casts=options.param_dtype == "float32",
            buckets=False,
        )

    def plan_bytes_sent(self, config: StrategyConfig, workload: Workload) -> int:
        options, trained, accumulation = config.fsdp2, workload.num_trained, workload.accumulation
        shards = workload.num_processes // options.replicate
        width = 2 if options.param_dtype == "bfloat16" else FLOAT_BYTES
        reduced = 2 if options.reduce_dtype == "bfloat16" else FLOAT_BYTES
        both = options.reshard_after_forward
        gathered = workload.forward_values() + workload.backward_values() if both else workload.num_values
        sums = accumulation if options.accumulation == "sharded" else 1
        sent = accumulation * ring_bytes(gathered, shards, width) + sums * ring_bytes(trained, shards, reduced)
        return round(sent + 2 * ring_bytes(math.ceil(trained / shards), options.replicate, reduced))

    def plan_bytes_between_nodes(self, config: StrategyConfig, workload: Workload, num_nodes: int) -> int:
        """Bytes that each process sends to other nodes; with replicas of whole nodes those of its own shard alone.

        Args:
            config: the strategy's.
            workload: what is spread.
            num_nodes: that the processes are on.
        """
        replicate = config.fsdp2.replicate
        if num_nodes == 1 or replicate % num_nodes:
            return super().plan_bytes_between_nodes(config, workload, num_nodes)
        # Shards are gathered within a node; between nodes each process sums its own shard with its replicas.
        whole = replace(config, fsdp2=replace(config.fsdp2, replicate=1))
        within = replace(workload, num_processes=workload.num_processes // replicate)
        inside = self.plan_bytes_sent(whole, within) if within.num_processes > 1 else 0
        return self.plan_bytes_sent(config, workload) - inside

    # Tensors.

    def holds(self, tensor: AnyTensor) -> bool:
        return isinstance(tensor, DTensor)

    def shards(self, model: nn.Module) -> bool:
        return any(isinstance(module, FSDPModule) for module in model.modules())

    def local_part(self, parameter: Held) -> Part:
        assert isinstance(parameter, DTensor)
        return parameter.to_local().detach()

    def gather(self, tensor: Held) -> Whole:
        assert isinstance(tensor, DTensor)
        return tensor.full_tensor()

    def own_values(self, tensor: Held) -> Values:
        assert isinstance(tensor, DTensor)
        mesh = tensor.device_mesh
        copies = [axis for axis, placement in enumerate(tensor.placements) if isinstance(placement, Replicate)]
        own = tensor.to_local().detach().flatten()
        return own if all(mesh.get_local_rank(axis) == 0 for axis in copies) else own[:0]

    def fill(self, parameter: Held, source: TensorSource) -> None:
        assert isinstance(parameter, DTensor)
        rows = _local_rows(parameter)
        if len(rows):
            parameter.to_local().copy_(source.rows(rows.start, rows.stop))

    # Models.

    @contextmanager
    def gathered(self, model: nn.Module) -> Iterator[None]:
        units = [module for module in model.modules() if isinstance(module, FSDPModule)]
        for unit in units:
            # They are gathered by their first calls.
            unit.set_reshard_after_forward(False, recurse=False)
        try:
            yield
        finally:
            for unit in units:
                unit.set_reshard_after_forward(True, recurse=False)
                unit.reshard()

    def as_layer(self, module: nn.Module) -> ShardedLayer:
        assert isinstance(module, FSDPModule)
        return ShardedLayer(module=module, unshard=module.unshard, reshard=module.reshard)


def check_mesh(num_processes: int, replicate: int) -> None:
    """Whether processes can be laid out as replicate x shard.

    Raises:
        ConfigError: they cannot; names the nearest numbers of replicas that can.
    """
    if num_processes % replicate == 0:
        return
    good = [n for n in range(1, num_processes + 1) if num_processes % n == 0]
    below, above = [n for n in good if n < replicate][-1:], [n for n in good if n > replicate][:1]
    raise ConfigError(
        f"strategy.fsdp2.replicate {replicate} does not divide {num_processes} process(es)",
        hint=f"use {' or '.join(str(n) for n in [*below, *above])}",
    )


def sharded_values(shapes: dict[str, Size], num_shards: int) -> int:
    """Values of the rank that holds most when every parameter is split along its first axis."""
    return sum(math.ceil(shape[0] / num_shards) * shape[1:].numel() for shape in shapes.values())


def _local_rows(parameter: DTensor) -> range:
    """The rows of a parameter that this rank holds."""
    assert all(isinstance(each, Replicate) or each == Shard(0) for each in parameter.placements), parameter.placements
    numbers = torch.arange(parameter.shape[0])
    # Every rank has all numbers: nothing is sent.
    own = distribute_tensor(numbers, parameter.device_mesh, parameter.placements, src_data_rank=None).to_local()
    return range(int(own[0]), int(own[-1]) + 1) if own.numel() else range(0)


class FSDP2Strategy(DCPCheckpoints, OpenModelParallelStrategy):
    """Weights, gradients and optimizer sharded over processes, or over those of each replica."""

    backend = FSDP2()
    mesh: DeviceMesh

    def __init__(self, config: StrategyConfig) -> None:
        super().__init__(tensor_parallel_size=1)
        self.parallelism = config
        self.options = config.fsdp2

    def setup_environment(self) -> None:
        num_processes = self.num_nodes * self.num_processes
        check_mesh(num_processes, self.options.replicate)
        self.set_data_parallel_size(num_processes)
        if self.options.cpu_offload and self.root_device.type == "cuda":
            # The norm of offloaded gradients is summed over processes where they are.
            self.set_default_process_group_backend("cpu:gloo,cuda:nccl")
        super().setup_environment()
        shards = num_processes // self.options.replicate
        kind = self.root_device.type
        if self.options.replicate > 1:
            shape = (self.options.replicate, shards)
            with split_quietly():
                self.mesh = init_device_mesh(kind, shape, mesh_dim_names=("replicate", "shard"))
            set_timeout(self.mesh, self.timeout)
        else:
            self.mesh = self.device_mesh["data_parallel"]

    def setup(self, trainer: Trainer) -> None:
        assert self.lightning_module is not None
        for name, parameter in self.lightning_module.named_parameters():
            if parameter.requires_grad and not isinstance(parameter, DTensor):
                # Nothing would average its gradient over the processes.
                problem = f"{name} of {type(self.lightning_module).__name__} is not sharded"
                raise ConfigError(f"strategy.name fsdp2, but {problem}", hint="use ddp for this model")
        super().setup(trainer)

    def placement(self) -> Placement:
        """Where and how the model's blocks are made."""
        return Placement.of(self.parallelism, self.root_device, shard=self._shard)

    def is_part(self, tensor: AnyTensor) -> bool:
        return isinstance(tensor, DTensor)

    def _shard(self, module: nn.Module, methods: Sequence[str], frozen: bool) -> None:
        options = self.options
        narrow = options.param_dtype != "float32"
        policy = MixedPrecisionPolicy(
            param_dtype=getattr(torch, options.param_dtype) if narrow else None,
            reduce_dtype=getattr(torch, options.reduce_dtype),
        )
        fully_shard(
            module,
            mesh=self.mesh,
            # Frozen modules have no backward pass to keep weights for.
            reshard_after_forward=options.reshard_after_forward or frozen,
            mp_policy=policy,
            offload_policy=CPUOffloadPolicy(pin_memory=self.root_device.type == "cuda")
            if options.cpu_offload
            else OffloadPolicy(),
        )
        for method in methods:
            register_fsdp_forward_method(module, method)

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """No communication of gradients (over the shards, where they are kept sharded) in this backward pass."""
        assert self.lightning_module is not None
        units = [module for module in self.lightning_module.modules() if isinstance(module, FSDPModule)]
        sharded = self.options.accumulation == "sharded"

        def synchronise(wanted: bool) -> None:
            for unit in units:
                if sharded:
                    unit.set_requires_all_reduce(wanted, recurse=False)
                else:
                    unit.set_requires_gradient_sync(wanted, recurse=False)

        synchronise(False)
        try:
            yield
        finally:
            synchronise(True)

    def model_to_device(self) -> None:
        # What is sharded is where it belongs: a move would make other parameters, without tags, or undo the offload.
        assert self.lightning_module is not None
        for child in self.lightning_module.children():
            if not any(isinstance(parameter, DTensor) for parameter in child.parameters()):
                child.to(self.root_device)
