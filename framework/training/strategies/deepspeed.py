"""DeepSpeed's ZeRO: the optimizer (stage 1), gradients (2) and weights (3) in flat parts, by an engine of its own.

Under stage 3 a parameter is empty between its uses, and DeepSpeed keeps the rank's part in its `ds_tensor`. Its engine
takes the optimizer's step, clips, accumulates and writes checkpoints; see `deepspeed_files` for these.
"""

import importlib.util
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.precision import DeepSpeedPrecision
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Size, nn
from torch.optim import Optimizer

from framework.core.collectives import rank_and_size
from framework.core.compat.lightning_compat import OpenDeepSpeedStrategy
from framework.core.errors import ConfigError
from framework.training.checkpoint.digests import record_files
from framework.training.checkpoint.layout import FOLDER, FileRecord, sync_files
from framework.training.checkpoint.strategy import DirectoryCheckpoints
from framework.training.checkpoint.writing import WriteTensors, together
from framework.training.shapes import AnyTensor, Held, NamedTensors, Part, Values, Whole
from framework.training.strategies.backend import Backend, Devices, ShardedLayer, TensorSource
from framework.training.strategies.config import CheckpointKind, StrategyConfig
from framework.training.strategies.deepspeed_files import (
    TAG,
    Engine,
    files_of,
    fill_module,
    fill_partition,
    is_partitioned,
    load_engine,
    load_universal,
    partition_of,
)
from framework.training.strategies.placement import Placement
from framework.training.strategies.workload import FLOAT_BYTES, Kept, ProcessShare, Workload, ring_bytes

log = logging.getLogger(__name__)
Batch = TypeVar("Batch")

INSTALL_DEEPSPEED = 'pip install "framework[deepspeed]"'
_BUCKET = 200_000_000
"""Values of the buckets of gradients, as Lightning sets them."""
_REUSE_DISTANCE = 1_000_000_000
"""Stage 3 keeps weights that are used again within so many values."""


class DeepSpeed(Backend):
    """Parameters are whole on every rank, or under stage 3 partitioned."""

    title = "DeepSpeed"
    one_graph = False
    sees_gradients = False

    # Before a run.

    def make(self, config: StrategyConfig, devices: Devices) -> Strategy:
        if config.compile and config.deepspeed.stage == 3:
            warnings.warn(
                "strategy.compile under ZeRO-3 compiles little: the hooks of every layer break a block into pieces; "
                "fsdp2 shards as much and compiles whole blocks",
                stacklevel=3,
            )
        if devices.of_node[0].type != "cuda":
            raise ConfigError(
                f"strategy.name deepspeed on the device {devices.of_node[0].type}",
                hint="it needs GPUs; use fsdp2 or ddp",
            )
        if importlib.util.find_spec("deepspeed") is None:
            raise ConfigError("strategy.name deepspeed without DeepSpeed's package", hint=INSTALL_DEEPSPEED)
        return DeepSpeedStrategy(config)

    def offloaded(self, config: StrategyConfig) -> StrategyConfig:
        options = replace(config.deepspeed, offload_optimizer=True, offload_parameters=config.deepspeed.stage == 3)
        return replace(config, deepspeed=options)

    def plan_share(self, config: StrategyConfig, workload: Workload) -> ProcessShare:
        options, whole, trained = config.deepspeed, workload.num_values, workload.num_trained
        mine, learned = (math.ceil(values / workload.num_processes) for values in (whole, trained))
        gathered = min(_REUSE_DISTANCE, whole) if options.stage == 3 else 0
        hosted: tuple[Kept, ...] = ("optimizer",) if options.offload_optimizer else ()
        return ProcessShare(
            parameters=mine if options.stage == 3 else whole,
            gradients=learned if options.stage >= 2 else trained,
            # The moments and a master copy.
            optimizer=3 * learned,
            ema=mine if options.stage == 3 else whole,
            hosted=(*hosted, "parameters", "ema") if options.offload_parameters else hosted,
            buffers=FLOAT_BYTES * (2 * min(_BUCKET, trained) + gathered),
        )

    def plan_bytes_sent(self, config: StrategyConfig, workload: Workload) -> int:
        if config.deepspeed.stage < 3:
            return super().plan_bytes_sent(config, workload)
        # Gathered forward and, where a gradient flows through it, backward, and summed, for every micro-batch.
        values = workload.num_values + min(workload.num_values, workload.backward_values()) + workload.num_trained
        return round(workload.accumulation * ring_bytes(values, workload.num_processes))

    # Tensors.

    def holds(self, tensor: AnyTensor) -> bool:
        return is_partitioned(tensor)

    def shards(self, model: nn.Module) -> bool:
        return any(is_partitioned(parameter) for parameter in model.parameters())

    def local_part(self, parameter: Held) -> Part:
        return partition_of(parameter).ds_tensor.detach()

    def gather(self, tensor: Held) -> Whole:
        import deepspeed

        with deepspeed.zero.GatheredParameters([tensor]):
            return tensor.detach().clone()

    def own_values(self, tensor: Held) -> Values:
        parameter = partition_of(tensor)
        shard = parameter.ds_tensor
        # The last shards are filled up with zeros.
        begin = dist.get_rank() * shard.numel()
        return shard.detach().flatten()[: max(0, parameter.ds_numel - begin)]

    def whole_shape(self, parameter: Held) -> Size:
        return partition_of(parameter).ds_shape

    def fill(self, parameter: Held, source: TensorSource) -> None:
        fill_partition(parameter, source.whole())

    def drop_copies(self, parameter: Held) -> None:
        # Small weights are kept whole besides the part.
        held = partition_of(parameter)
        if held.ds_status.name == "AVAILABLE":
            held.partition()

    # Models.

    @contextmanager
    def gathered(self, model: nn.Module) -> Iterator[None]:
        import deepspeed

        partitioned = [partition_of(parameter) for parameter in model.parameters() if is_partitioned(parameter)]
        with deepspeed.zero.GatheredParameters(list(partitioned)):
            # The hooks of DeepSpeed's modules would free the weights after each call, if nothing else used them.
            for parameter in partitioned:
                parameter.ds_active_sub_modules.add(-1)
            try:
                yield
            finally:
                for parameter in partitioned:
                    parameter.ds_active_sub_modules.discard(-1)

    def as_layer(self, module: nn.Module) -> ShardedLayer:
        """The engine, which would gather the layer, does not know its model; hooks do it."""
        parameters = [partition_of(parameter) for parameter in module.parameters()]

        def unshard() -> None:
            parameters[0].all_gather(param_list=parameters)

        def reshard() -> None:
            parameters[0].partition(param_list=parameters, has_been_updated=False)

        def gather_before(_: nn.Module, inputs: tuple[object, ...], named: dict[str, object]) -> None:
            unshard()
            hidden = cast(AnyTensor, inputs[0] if inputs else named["hidden_states"])
            if hidden.requires_grad:
                # Of what it reads the gradient comes last.
                hidden.register_hook(lambda gradient: reshard())

        def release_after(_: nn.Module, inputs: object, output: object) -> None:
            reshard()
            hidden = cast(AnyTensor, output[0] if isinstance(output, tuple) else output)
            if hidden.requires_grad:
                hidden.register_hook(lambda gradient: unshard())

        module.register_forward_pre_hook(gather_before, with_kwargs=True)
        module.register_forward_hook(release_after)
        return ShardedLayer(module=module, unshard=unshard, reshard=reshard)

    # Gradients.

    def norm_after_step(self, strategy: Strategy) -> float | None:
        norm = engine_of(strategy).get_global_grad_norm()
        if norm is None:
            return None
        # Some of its stages, in 0.19.0 all, say -1 for one that is infinite or not a number.
        return math.inf if norm < 0 else float(norm)


def engine_of(strategy: Strategy) -> Engine:
    """A strategy's engine, which stands where others have the module."""
    return cast(Engine, strategy.model)


class Float32DeepSpeedPrecision(DeepSpeedPrecision):
    """Weights in float32, and mixed precision by autocast, as under the other strategies.

    DeepSpeed's own mixed precision keeps the modules' weights in the lower one: averaged weights would no longer move
    there. A batch is left as it is.
    """

    def __init__(self, precision: Literal["32-true", "bf16-mixed"], device_type: str) -> None:
        super().__init__(precision)
        self.device_type = device_type

    def convert_input(self, data: Batch) -> Batch:
        return data

    def backward(self, *args: Any, **kwargs: Any) -> None:
        # Lightning 2.6 has divided the loss by the accumulated micro-batches; the engine would divide it again.
        super().backward(*args, scale_wrt_gas=False, **kwargs)

    @contextmanager
    def forward_context(self) -> Iterator[None]:
        with torch.autocast(self.device_type, dtype=torch.bfloat16, enabled=self.precision == "bf16-mixed"):
            yield


class DeepSpeedCheckpoints(DirectoryCheckpoints):
    """Checkpoints by the engine's own writer."""

    kind: CheckpointKind = "deepspeed"

    def lightning_module_state_dict(self) -> NamedTensors:
        # The engine saves it.
        return {}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return {}

    def _prepare_write(self, checkpoint: dict[str, object], partial: Path, copy: bool) -> WriteTensors:
        checkpoint.pop("state_dict")
        # The engine writes at once, whatever `copy` says; checksums and the rest come after.
        engine_of(self).save_checkpoint(str(partial), tag=TAG)

        def write() -> dict[Path, FileRecord]:
            own = files_of(partial, rank_and_size()[0])
            sync_files(own)
            return record_files(own)

        return write

    @property
    def lightning_restore_optimizer(self) -> bool:
        # The engine loads it with the weights.
        return False

    def load_model_state_dict(self, checkpoint: Mapping[str, object], strict: bool = True) -> None:
        assert self.lightning_module is not None
        assert self.choice is not None
        assert self.choice.manifest is not None
        path, module, trainer = self.loaded_from, self.lightning_module, self.lightning_module.trainer
        if trainer.state.fn != TrainerFn.FITTING:
            together(lambda: fill_module(module, path), f"{path} could not be loaded")
        elif self.choice.manifest.world_size == rank_and_size()[1]:
            load_engine(engine_of(self), path)
        else:
            log.info("written by %s processes: converting", self.choice.manifest.world_size)
            work = Path(trainer.default_root_dir, FOLDER, "universal.partial")
            load_universal(engine_of(self), module, path, work)


class DeepSpeedStrategy(DeepSpeedCheckpoints, OpenDeepSpeedStrategy):
    """DeepSpeed's ZeRO; clipping and accumulation are its own, with the trainer's numbers."""

    backend = DeepSpeed()
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

    def on_config_complete(self) -> None:
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
        with warnings.catch_warnings():
            # Modules that clip leave it to the engine, with the trainer's numbers.
            warnings.filterwarnings("ignore", message="Since DeepSpeed handles gradient clipping internally")
            super().init_deepspeed()

    @contextmanager
    def model_sharded_context(self) -> Iterator[None]:
        # Lightning's shards every parameter as it is made; here blocks are sharded when they are initialised.
        self.complete_config()
        yield

    def placement(self) -> Placement:
        """Where and how the model's blocks are made."""
        shard = self._shard if self.options.stage == 3 else None
        return Placement.of(self.parallelism, self.root_device, shard=shard)

    def _shard(self, module: nn.Module, methods: Sequence[str], frozen: bool) -> None:
        import deepspeed

        deepspeed.zero.Init(module=module, remote_device=self.remote_device, config_dict_or_path=self.config)
