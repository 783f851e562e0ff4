"""The Lightning strategy of a config value.

Every strategy has a `placement()`, by which `framework.training.strategies.placement.build_with_ema` makes a model in
its `configure_model`; the strategies know no model.
"""

import warnings
from contextlib import suppress

import torch
from lightning.pytorch.accelerators import Accelerator, CUDAAccelerator, MPSAccelerator
from lightning.pytorch.strategies import Strategy

from framework.core.errors import ConfigError
from framework.core.process.threads import refuse_too_many
from framework.training.shutdown import end_groups_at_exit, forget_error
from framework.training.strategies.backend import Devices, named_backend
from framework.training.strategies.config import STRATEGIES, StrategyConfig
from framework.training.strategies.launchers import check_launched


def make_strategy(
    config: StrategyConfig,
    *,
    accelerator: str | Accelerator = "auto",
    devices: int | str | list[int] = "auto",
    num_nodes: int = 1,
) -> Strategy:
    """The Lightning strategy of a config; the other arguments are the trainer's, with the trainer's meanings.

    `ddp` on one device is a single process without process groups. Options of another strategy than the chosen one are
    ignored with a warning.

    Args:
        config: what is asked for.
        accelerator: the trainer's, such as `cpu`.
        devices: the trainer's, of each node.
        num_nodes: how many nodes.

    Raises:
        ConfigError: devices that cannot be understood; a mesh that does not fit the processes; DeepSpeed without its
            package or without a GPU; a launcher that has started another number of processes; one graph of a loss
            whose weights are gathered within it.
    """
    found = Devices(of_node=tuple(_devices(accelerator, devices)), num_nodes=num_nodes)
    check_launched(num_nodes=num_nodes, num_devices=len(found.of_node))
    forget_error()
    if found.num_processes > 1:
        end_groups_at_exit()
    for name in STRATEGIES:
        options = getattr(config, name, None)
        if name != config.name and options is not None and options != type(options)():
            warnings.warn(f"strategy.{name} is ignored: strategy.name is {config.name}", stacklevel=2)
    backend = named_backend(config.name)
    if config.compile == "whole" and not backend.one_graph:
        raise ConfigError(
            f"strategy.compile whole under strategy.name {config.name}, which gathers weights within the loss",
            hint="set strategy.compile to true, which compiles each block, or use ddp",
        )
    backend.check_processes(config, found.num_processes)
    return backend.make(config, found)


def _devices(accelerator: str | Accelerator, devices: int | str | list[int]) -> list[torch.device]:
    """This node's devices that a trainer takes with these flags."""
    name = str(accelerator)
    if name in ("cuda", "gpu", "auto") and CUDAAccelerator.is_available():
        count = CUDAAccelerator.auto_device_count() if devices == "auto" else devices
        try:
            indices = CUDAAccelerator.parse_devices(count) or []
        except ValueError:
            raise _not_devices(devices) from None
        return [torch.device("cuda", index) for index in indices] or [torch.device("cpu")]
    if name in ("mps", "gpu", "auto") and MPSAccelerator.is_available():
        return [torch.device("mps", 0)]
    return [torch.device("cpu")] * _count(devices)


def _count(devices: int | str | list[int]) -> int:
    """How many processes run on a node's processor."""
    if devices == "auto":
        return 1
    with suppress(ValueError):
        if not isinstance(devices, list) and (count := int(devices)) > 0:
            refuse_too_many(count, "trainer.devices")
            return count
    raise _not_devices(devices)


def _not_devices(given: int | str | list[int]) -> ConfigError:
    hint = "on a CPU give a number of processes, 1 or more; on GPUs also auto, -1 for all, or a list such as [0, 1]"
    return ConfigError(f"trainer.devices {given}", hint=hint)
