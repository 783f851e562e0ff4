"""Building a model and its averaged copy for any strategy: module by module from the meta device.

A walk from the leaves to the root makes each module's own tensors on the device, fills them, and as soon as a block is
done prepares it: activation checkpointing, then compilation, then sharding. So no rank ever holds more than its shards
and one block. The model names its block classes and the parts that are called from outside; nothing here knows a model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar, cast

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.checkpoint import checkpoint

from framework.core.errors import ConfigError
from framework.core.init import initialise_module, own_tensors, replace_tensor
from framework.core.param_tags import tag, tags_of
from framework.training.strategies.config import Compiled, StrategyConfig


class Shardable(Protocol):
    """What a model says of itself.

    Attributes:
        BLOCKS: classes of the modules that are recomputed, compiled and sharded one by one.
        PARTS: submodules that are called from outside, each a unit of sharding with what its blocks leave; with the
            methods besides `forward` that use its weights. All weights belong to a part.
    """

    BLOCKS: ClassVar[tuple[type[nn.Module], ...]]
    PARTS: ClassVar[Mapping[str, Sequence[str]]]


ModelT = TypeVar("ModelT", bound=nn.Module)

Shard = Callable[[nn.Module, Sequence[str], bool], None]
"""Shards a module's own and its children's not yet sharded weights; given the methods besides `forward` that are called
from outside, and whether the module is frozen."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where and how a strategy wants a model's blocks.

    Attributes:
        device: of the weights; on the meta device nothing is made.
        activation_checkpointing: 0 for no block, n for every n-th one.
        compile: each block by itself, or the whole loss of a step, which its LightningModule does.
        shard: how to shard a block or a part; None leaves the model whole on every process.
    """

    device: torch.device
    activation_checkpointing: int = 0
    compile: Compiled = False
    shard: Shard | None = None

    @classmethod
    def of(cls, config: StrategyConfig, device: torch.device, shard: Shard | None = None) -> "Placement":
        """What a config asks of every strategy.

        Args:
            config: of the run.
            device: of this process.
            shard: the strategy's; None leaves the model whole.
        """
        return cls(
            device=device,
            activation_checkpointing=config.activation_checkpointing,
            compile=config.compile,
            shard=shard,
        )


def placement_of(module: LightningModule) -> Placement:
    """The placement that the trainer's strategy wants; without one of ours, whole on the default device.

    Raises:
        ConfigError: a compiled loss of a module that does not say, by `compiles_loss`, that it makes one.
    """
    try:
        strategy = module.trainer.strategy
    except RuntimeError:  # No trainer has the module.
        strategy = None
    wanted = getattr(strategy, "placement", None)
    placement: Placement = Placement(device=torch.get_default_device()) if wanted is None else wanted()
    if placement.compile == "whole" and not getattr(module, "compiles_loss", False):
        raise ConfigError(
            f"strategy.compile whole with {type(module).__name__}, whose loss is not one graph",
            hint="leave strategy.compile out, or set it to true, which compiles each block",
        )
    return placement


def build_with_ema(make: Callable[[], ModelT], placement: Placement, *, seed: int) -> tuple[ModelT, ModelT]:
    """A model as a placement wants it, and a frozen copy of equal weights, sharded alike, in evaluation mode.

    Args:
        make: makes a `Shardable` model; it is called on the meta device.
        placement: the strategy's.
        seed: initial weights are a function of it and of a module's qualified name.
    """
    with torch.device("meta"):
        model, ema_model = make(), make()
    ema_model.requires_grad_(False).eval()
    if placement.device.type != "meta":
        _Builder(model, ema_model, placement, seed).build()
    return model, ema_model


class _Builder:
    def __init__(self, model: nn.Module, ema_model: nn.Module, placement: Placement, seed: int) -> None:
        self.model, self.ema_model, self.placement, self.seed = model, ema_model, placement, seed
        self.blocks, self.parts = cast(Shardable, model).BLOCKS, cast(Shardable, model).PARTS
        self.num_blocks = 0

    def build(self) -> None:
        self._walk(self.model, self.ema_model, "")

    def _walk(self, module: nn.Module, ema_model: nn.Module, name: str) -> None:
        for key, child in module.named_children():
            self._walk(child, ema_model.get_submodule(key), f"{name}.{key}" if name else key)
        self._fill(module, ema_model, name)
        if isinstance(module, self.blocks):
            # The average never trains, and samples one token at a time: nothing to recompute, many shapes to compile.
            prepare_block(module, self.num_blocks, self.placement)
            self.num_blocks += 1
        if isinstance(module, self.blocks) or name in self.parts:
            self._shard(module, name)
            self._shard(ema_model, name)

    def _fill(self, module: nn.Module, ema_model: nn.Module, name: str) -> None:
        names, device = list(own_tensors(module)), self.placement.device
        for key in names:
            replace_tensor(module, key, torch.empty_like(getattr(module, key), device="cpu", requires_grad=False))
        # On the CPU whatever the device is: generators of other devices give other numbers.
        initialise_module(module, self.seed, name)
        for key in names:
            value = getattr(module, key).detach()
            replace_tensor(ema_model, key, value.to(device, copy=True))
            replace_tensor(module, key, value.to(device))

    def _shard(self, module: nn.Module, name: str) -> None:
        if self.placement.shard is None:
            return
        tags = {key: tags_of(parameter) for key, parameter in module.named_parameters()}
        frozen = not any(parameter.requires_grad for parameter in module.parameters())
        self.placement.shard(module, self.parts.get(name, ()), frozen)
        for key, parameter in module.named_parameters():
            # Sharding may put other parameters in their places.
            tag(parameter, *tags[key])


def prepare_block(block: nn.Module, number: int, placement: Placement) -> None:
    """Activation checkpointing of every n-th block, then compilation; sharding comes after.

    The block's `forward` is replaced, not the block: tensors keep their names, and the hooks by which a sharded block
    gathers its weights stay outside of what is recomputed and compiled.

    Args:
        block: whose `forward` is replaced.
        number: of the block in the model, from 0.
        placement: says which blocks are recomputed, and whether they are compiled.
    """
    forward = cast(Callable[..., object], block.forward)
    if placement.activation_checkpointing and number % placement.activation_checkpointing == 0:
        forward = _recomputed(forward)
    if placement.compile is True:
        # Few shapes come in training; code for all of them would be slower.
        forward = torch.compile(forward, dynamic=False)
    if forward != block.forward:
        block.forward = forward


def _recomputed(forward: Callable[..., object]) -> Callable[..., object]:
    def with_recomputation(*inputs: object) -> object:
        return checkpoint(forward, *inputs, use_reentrant=False)

    return with_recomputation
