"""The Lightning strategies that runs are spread over processes by, each made from its config value.

Every strategy here has a `placement()`, by which `framework.training.strategies.placement.build` makes a model in its
`configure_model`; the strategies know no model.
"""

import importlib.util
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer, strategies
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from lightning.pytorch.plugins.precision import DeepSpeedPrecision
from lightning.pytorch.strategies import Strategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor

from framework.core.errors import ConfigError
from framework.training.checkpoint.strategy import DCPCheckpoints, DeepSpeedCheckpoints
from framework.training.strategies.config import DeepSpeedOptions, FSDP2Options, StrategyConfig, check_mesh
from framework.training.strategies.placement import Placement, Shard
from framework.training.strategies.shutdown import end_groups_at_exit

INSTALL_DEEPSPEED = 'pip install "framework[deepspeed]"'


def make_strategy(
    config: StrategyConfig, *, accelerator: Any = "auto", devices: Any = "auto", num_nodes: int = 1
) -> Strategy:
    """The Lightning strategy of a config; the other arguments are the trainer's, with the trainer's meanings.

    `ddp` on one device is a single process without process groups. Options of another strategy than the chosen one are
    ignored with a warning.

    Raises:
        ConfigError: a mesh that does not fit the processes; DeepSpeed without its package or without a GPU.
    """
    found = _devices(accelerator, devices)
    num_processes = len(found) * num_nodes
    if num_processes > 1:
        end_groups_at_exit()
    for name, options, default in (
        ("fsdp2", config.fsdp2, FSDP2Options()),
        ("deepspeed", config.deepspeed, DeepSpeedOptions()),
    ):
        if name != config.name and options != default:
            warnings.warn(f"strategy.{name} is ignored: strategy.name is {config.name}", stacklevel=2)
    if config.name == "fsdp2":
        check_mesh(num_processes, config.fsdp2.replicate)
        if num_processes == 1:
            warnings.warn("strategy.name fsdp2 on one process shards nothing; ddp is faster there", stacklevel=2)
        return FSDP2Strategy(config)
    if config.name == "deepspeed":
        if importlib.util.find_spec("deepspeed") is None:
            raise ConfigError("strategy.name deepspeed without DeepSpeed's package", hint=INSTALL_DEEPSPEED)
        if config.compile and config.deepspeed.stage == 3:
            warnings.warn(
                "strategy.compile under ZeRO-3 compiles little: the hooks of every layer break a block into pieces; "
                "fsdp2 shards as much and compiles whole blocks",
                stacklevel=2,
            )
        if found[0].type != "cuda":
            raise ConfigError(
                f"strategy.name deepspeed on the device {found[0].type}", hint="it needs GPUs; use fsdp2 or ddp"
            )
        return DeepSpeedStrategy(config)
    if num_processes == 1:
        return SingleDeviceStrategy(config, found[0])
    return DDPStrategy(config)


def _devices(accelerator: Any, devices: Any) -> list[torch.device]:
    """This node's devices that a trainer takes with these flags."""
    name = str(accelerator)
    if name in ("cuda", "gpu", "auto") and CUDAAccelerator.is_available():
        count = CUDAAccelerator.auto_device_count() if devices == "auto" else devices
        indices = CUDAAccelerator.parse_devices(count) or []
        return [torch.device("cuda", index) for index in indices] or [torch.device("cpu")]
    if name in ("mps", "gpu", "auto") and MPSAccelerator.is_available():
        return [torch.device("mps", 0)]
    count = 1 if devices == "auto" else int(devices) if isinstance(devices, int | str) else len(devices)
    return [torch.device("cpu")] * max(1, count)


def _placement(config: StrategyConfig, device: torch.device, shard: Shard | None = None) -> Placement:
    return Placement(
        device=device,
        activation_checkpointing=config.activation_checkpointing,
        compile=config.compile,
        shard=shard,
    )


class SingleDeviceStrategy(DCPCheckpoints, strategies.SingleDeviceStrategy):
    """One process on one device."""

    def __init__(self, config: StrategyConfig, device: torch.device) -> None:
        super().__init__(device=device)
        self.parallelism = config

    def placement(self) -> Placement:
        return _placement(self.parallelism, self.root_device)


class DDPStrategy(DCPCheckpoints, strategies.DDPStrategy):
    """The whole model on every process; gradients are averaged, for accumulated micro-batches once."""

    def __init__(self, config: StrategyConfig) -> None:
        # The buffers are tables, equal everywhere.
        super().__init__(gradient_as_bucket_view=True, broadcast_buffers=False)
        self.parallelism = config

    def placement(self) -> Placement:
        return _placement(self.parallelism, self.root_device)


class FSDP2Strategy(DCPCheckpoints, strategies.ModelParallelStrategy):
    """Weights, gradients and optimizer sharded over processes, or over those of each replica."""

    mesh: DeviceMesh

    def __init__(self, config: StrategyConfig) -> None:
        super().__init__(tensor_parallel_size=1)
        self.parallelism = config
        self.options = config.fsdp2

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        check_mesh(self._data_parallel_size, self.options.replicate)
        if self.options.cpu_offload and self.root_device.type == "cuda":
            # The norm of offloaded gradients is summed over processes where they are.
            self._process_group_backend = self._process_group_backend or "cpu:gloo,cuda:nccl"
        super().setup_environment()
        shards = self._data_parallel_size // self.options.replicate
        kind = self.root_device.type
        if self.options.replicate > 1:
            shape = (self.options.replicate, shards)
            self.mesh = init_device_mesh(kind, shape, mesh_dim_names=("replicate", "shard"))
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
        return _placement(self.parallelism, self.root_device, shard=self._shard)

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


class Float32DeepSpeedPrecision(DeepSpeedPrecision):
    """Weights in float32, and mixed precision by autocast, as under the other strategies.

    DeepSpeed's own mixed precision keeps the modules' weights in the lower one: averaged weights would no longer move
    there. A batch is left as it is.
    """

    def __init__(self, precision: Literal["32-true", "bf16-mixed"], device_type: str) -> None:
        super().__init__(precision)
        self.device_type = device_type

    def convert_input(self, data: Any) -> Any:
        return data

    def backward(self, *args: Any, **kwargs: Any) -> None:
        # Lightning 2.6 has divided the loss by the accumulated micro-batches; the engine would divide it again.
        super().backward(*args, scale_wrt_gas=False, **kwargs)

    @contextmanager
    def forward_context(self) -> Iterator[None]:
        with torch.autocast(self.device_type, dtype=torch.bfloat16, enabled=self.precision == "bf16-mixed"):
            yield


class DeepSpeedStrategy(DeepSpeedCheckpoints, strategies.DeepSpeedStrategy):
    """DeepSpeed's ZeRO; clipping and accumulation are its own, with the trainer's numbers."""

    config: dict[str, Any]

    def __init__(self, config: StrategyConfig) -> None:
        options = config.deepspeed
        super().__init__(
            stage=options.stage,
            offload_optimizer=options.offload_optimizer,
            offload_parameters=options.offload_parameters,
            remote_device="cpu" if options.offload_parameters else None,
            # The trainer's loader is not asked for it: that would make a second one.
            logging_batch_size_per_gpu=1,
        )
        self.parallelism = config
        self.options = options
        # torch's AdamW, also on the host: DeepSpeed's own has to be built from C++.
        self.config["zero_force_ds_cpu_optimizer"] = False
        if options.stage == 3:
            self.config["zero_optimization"]["stage3_param_persistence_threshold"] = options.persistence_threshold

    def setup_environment(self) -> None:
        self.choose_precision()
        super().setup_environment()

    def choose_precision(self) -> None:
        """Put autocast in the place of DeepSpeed's own mixed precision.

        Raises:
            ConfigError: a precision that would keep the weights in less than float32.
        """
        precision = self.precision_plugin.precision
        if precision not in ("32-true", "bf16-mixed"):
            raise ConfigError(f"trainer.precision {precision} under deepspeed", hint="use bf16-mixed or 32-true")
        self.precision_plugin = Float32DeepSpeedPrecision(precision, self.root_device.type)

    def _format_config(self) -> None:
        super()._format_config()
        if self.precision_plugin.precision == "bf16-mixed":
            del self.config["bf16"]
            self.config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}

    def init_deepspeed(self) -> None:
        assert self.lightning_module is not None
        if "torch_autocast" in self.config and self.options.comm_dtype == "bfloat16":
            # DeepSpeed looks at the exact class.
            linear = {type(module) for module in self.lightning_module.modules() if isinstance(module, nn.Linear)}
            names = sorted(f"{each.__module__}.{each.__qualname__}" for each in linear)
            self.config["torch_autocast"]["lower_precision_safe_modules"] = names
        super().init_deepspeed()

    @contextmanager
    def model_sharded_context(self) -> Iterator[None]:
        # Lightning's shards every parameter as it is made; here blocks are sharded when they are initialised.
        self._init_config_if_needed()
        yield

    def placement(self) -> Placement:
        shard = self._shard if self.options.stage == 3 else None
        return _placement(self.parallelism, self.root_device, shard=shard)

    def _shard(self, module: nn.Module, methods: Sequence[str], frozen: bool) -> None:
        import deepspeed

        deepspeed.zero.Init(module=module, remote_device=self.remote_device, config_dict_or_path=self.config)
