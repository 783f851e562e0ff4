"""What a training step costs, found without data, weights or a GPU: operations, saved tensors, calls of each unit."""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from framework.core.compat.torch_compat import (
    CAST,
    FakeTensorMode,
    TorchDispatchMode,
    storage_key,
)
from framework.core.init import own_tensors, replace_tensor
from framework.core.random.philox import WORDS
from framework.pra.loss import Losses, ObjectiveConfig, noise_from, num_normal, num_uniform, training_losses
from framework.pra.network.build import build_generator, train_only
from framework.pra.network.config import PRAConfig
from framework.pra.network.generator import ImageGenerator
from framework.training.planning import Precision
from framework.training.strategies.placement import Placement, prepare_block


@dataclass(frozen=True, kw_only=True)
class SavedTensors:
    """What a micro-batch keeps from its forward pass for the backward pass, in bytes; each storage is counted once.

    Attributes:
        activations: all but weights and their copies; with recomputed blocks, what the largest of them keeps within
            itself is counted too.
        weight_copies: copies of weights in the lower precision of autocast, one for each pass over a layer.
    """

    activations: int
    weight_copies: int


def training_flops_per_image(
    config: PRAConfig, objective: ObjectiveConfig, trainable: tuple[str, ...] | None = None
) -> tuple[int, int]:
    """Floating-point operations of matrix products for an image: (forward, forward and backward).

    Counted on the meta device; a multiply and an add are two. Attention counts whole, without its causal half, and
    recomputation does not count: the usual convention for model FLOPs (Chowdhery et al. 2022, PaLM, appendix B).

    Args:
        config: the model.
        objective: what is minimised.
        trainable: parts that learn; all by default.
    """
    step = _count_step(config, objective, trainable)
    return step.forward, step.total


@dataclass(frozen=True, kw_only=True)
class ParameterCalls:
    """How often a training step uses each parameter, by qualified name: sharded, it is gathered so often.

    Attributes:
        forward: in the forward pass.
        backward: in the backward pass, which leaves out what no gradient flows through.
    """

    forward: dict[str, int]
    backward: dict[str, int]


def calls_of_parameters(
    config: PRAConfig, objective: ObjectiveConfig, trainable: tuple[str, ...] | None = None
) -> ParameterCalls:
    """How often a step uses each parameter.

    Args:
        config: the model.
        objective: what is minimised.
        trainable: parts that learn; all by default.
    """
    return _count_step(config, objective, trainable).calls


@dataclass(frozen=True, kw_only=True)
class _StepCounts:
    """Of a training step with one image.

    Attributes:
        forward: operations of the forward pass.
        total: of both passes.
        calls: of each parameter.
    """

    forward: int
    total: int
    calls: ParameterCalls


@lru_cache
def _count_step(config: PRAConfig, objective: ObjectiveConfig, trainable: tuple[str, ...] | None = None) -> _StepCounts:
    with torch.device("meta"):
        model = build_generator(config)
    train_only(model, trainable)
    units = model.units()
    forward_calls, backward_calls = Counter[str](), Counter[str]()

    def count(name: str) -> Callable[..., None]:
        def note(module: nn.Module, inputs: object, output: Tensor | tuple[object, ...]) -> None:
            forward_calls[name] += 1
            outputs = output if isinstance(output, tuple) else (output,)
            backward_calls[name] += any(isinstance(each, Tensor) and each.requires_grad for each in outputs)

        return note

    for name, unit in units.items():
        unit.register_forward_hook(count(name))
    counter = FlopCounterMode(display=False)
    with counter:
        losses = _losses(model, objective, 1, torch.device("meta"))
        forward = counter.get_total_flops()
        losses.total.backward()  # pyright: ignore[reportUnknownMemberType]
    of_parameters = {name: unit_of(name, units) for name, _ in model.named_parameters()}
    calls = ParameterCalls(
        forward={name: forward_calls[unit] for name, unit in of_parameters.items()},
        backward={name: backward_calls[unit] for name, unit in of_parameters.items()},
    )
    return _StepCounts(forward=forward, total=counter.get_total_flops(), calls=calls)


def unit_of(parameter: str, units: Iterable[str]) -> str:
    """The innermost of the named modules that a parameter belongs to."""
    return max((unit for unit in units if parameter.startswith(f"{unit}.")), key=len)


@lru_cache
def saved_tensors(
    config: PRAConfig,
    objective: ObjectiveConfig,
    *,
    micro_batch: int,
    precision: Precision,
    activation_checkpointing: int = 0,
    trainable: tuple[str, ...] | None = None,
) -> SavedTensors:
    """What a step keeps for its backward pass, from fake tensors: nothing is computed.

    With activation checkpointing of every n-th block, these blocks keep their inputs alone, and the largest of them is
    kept once more while it is recomputed.

    Args:
        config: the model.
        objective: what is minimised.
        micro_batch: images of the forward pass.
        precision: of the matrix products; weights are float32.
        activation_checkpointing: n; 0 for no block.
        trainable: parts that learn; all by default.
    """
    whole = _saved_whole(config, objective, micro_batch=micro_batch, precision=precision, trainable=trainable)
    if not activation_checkpointing:
        return whole.tensors
    with _fake_model(config, trainable) as model:
        recompute_blocks(model, activation_checkpointing)
        tape = record_forward(model, objective, micro_batch=micro_batch, precision=precision)
    recomputed = max((size for number, size in whole.calls if number % activation_checkpointing == 0), default=0)
    return SavedTensors(activations=tape.activations + recomputed, weight_copies=tape.weight_copies)


@dataclass(frozen=True, kw_only=True)
class _SavedWhole:
    """What is kept where no block is recomputed.

    Attributes:
        tensors: by a whole micro-batch.
        calls: number of the block and bytes that it keeps, for each call of one.
    """

    tensors: SavedTensors
    calls: tuple[tuple[int, int], ...]


@lru_cache
def _saved_whole(
    config: PRAConfig,
    objective: ObjectiveConfig,
    *,
    micro_batch: int,
    precision: Precision,
    trainable: tuple[str, ...] | None,
) -> _SavedWhole:
    with _fake_model(config, trainable) as model:
        tape = record_forward(model, objective, micro_batch=micro_batch, precision=precision)
    tensors = SavedTensors(activations=tape.activations, weight_copies=tape.weight_copies)
    return _SavedWhole(tensors=tensors, calls=tuple(tape.calls()))


@contextmanager
def _fake_model(config: PRAConfig, trainable: tuple[str, ...] | None) -> Generator[ImageGenerator]:
    """A model of fake tensors, and within it all tensors are fake."""
    with torch.device("meta"):
        model = build_generator(config)
    with FakeTensorMode():
        for module in model.modules():
            for name, tensor in own_tensors(module).items():
                replace_tensor(module, name, torch.empty(tensor.shape, dtype=tensor.dtype))
        train_only(model, trainable)
        yield model


def recompute_blocks(model: ImageGenerator, every: int) -> None:
    """Activation checkpointing of every n-th block, as in training."""
    placement = Placement(device=torch.device("cpu"), activation_checkpointing=every)
    for number, block in enumerate(_blocks(model)):
        prepare_block(block, number, placement)


def record_forward(
    model: ImageGenerator, objective: ObjectiveConfig, *, micro_batch: int, precision: Precision
) -> "Tape":
    """The saved tensors of one forward pass of a model on the CPU, real or fake.

    Args:
        model: what is measured.
        objective: what is minimised.
        micro_batch: images of the forward pass.
        precision: of the matrix products.
    """
    tape = Tape(model)
    with tape.recording(), _autocast(precision):
        # Kept until the end: storages must not be freed and come again.
        tape.losses = _losses(model, objective, micro_batch, torch.device("cpu"))
    return tape


def _autocast(precision: Precision) -> torch.autocast:
    # Without a cache, as Lightning does: each pass over a layer makes a copy of its weights.
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed", cache_enabled=False)


class Tape(TorchDispatchMode):
    """Notes the storages that are saved for the backward pass, and in which call of which block."""

    def __init__(self, model: ImageGenerator) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        self.losses: Losses | None = None
        self._model = model
        self._weights = {storage_key(tensor) for tensor in (*model.parameters(), *model.buffers())}
        self._saved: dict[int, int] = {}
        self._copies: set[int] = set()
        self._calls: list[tuple[int, set[int]]] = []
        self._inside = False
        self._held: list[Shaped[Tensor, ...]] = []

    @property
    def activations(self) -> int:
        """Bytes saved, without weights and their copies."""
        return sum(size for key, size in self._saved.items() if key not in self._copies)

    @property
    def weight_copies(self) -> int:
        """Bytes saved of weights that autocast has cast."""
        return sum(size for key, size in self._saved.items() if key in self._copies)

    def calls(self) -> Iterator[tuple[int, int]]:
        """The number of the block and the bytes that it keeps, of each call of one."""
        for number, keys in self._calls:
            yield number, sum(self._saved[key] for key in keys)

    @contextmanager
    def recording(self) -> Generator[None]:
        """Within it, forward passes of the model are noted."""
        with ExitStack() as stack:
            for number, block in enumerate(_blocks(self._model)):
                entered = block.register_forward_pre_hook(self._entering(number))  # pyright: ignore[reportUnknownMemberType]
                stack.callback(entered.remove)
                stack.callback(block.register_forward_hook(self._leave).remove)
            stack.enter_context(saved_tensors_hooks(self._pack, lambda tensor: tensor))
            stack.enter_context(self)
            yield

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        out = func(*args, **(kwargs or {}))
        if func is CAST and storage_key(cast(Tensor, args[0])) in self._weights:
            copy = cast(Tensor, out)
            self._copies.add(storage_key(copy))
            self._held.append(copy)
        return out

    def _pack(self, tensor: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        key = storage_key(tensor)
        if key not in self._weights:
            if key not in self._saved and self._inside:
                self._calls[-1][1].add(key)
            self._saved[key] = tensor.untyped_storage().nbytes()
            self._held.append(tensor)
        return tensor

    def _entering(self, number: int) -> Callable[..., None]:
        def enter(*_: object) -> None:
            self._calls.append((number, set()))
            self._inside = True

        return enter

    def _leave(self, *_: object) -> None:
        self._inside = False


def _blocks(model: ImageGenerator) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, model.BLOCKS)]


def _losses(model: ImageGenerator, objective: ObjectiveConfig, batch: int, device: torch.device) -> Losses:
    """The losses of a batch of black images."""
    config = model.config
    count = num_normal(config, objective)
    # Random numbers come in whole blocks of the generator.
    normal = torch.zeros(batch, -(-count // WORDS) * WORDS, device=device)[:, :count]
    uniform = torch.zeros(batch, num_uniform(config, objective), device=device)
    noise = noise_from(uniform, normal, config, objective)
    images = torch.zeros(batch, config.channels, config.image_size, config.image_size, device=device)
    labels = torch.zeros(batch, dtype=torch.long, device=device)
    return training_losses(model, images, labels, objective, noise)
