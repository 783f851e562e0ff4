"""Initial weights as a function of (seed, qualified name of the module) alone.

So they are equal however a model is spread over processes, and each module can be made by itself. A module that holds
tensors of its own has a `reset_parameters()` that fills these, and not its children's, on the CPU (torch's convention).
"""

from collections.abc import Iterator
from typing import cast

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from framework.core.param_tags import tag, tags_of
from framework.core.random.seeding import seed_of


def own_tensors(module: nn.Module) -> dict[str, Shaped[Tensor, "..."]]:
    """Parameters and buffers of a module itself, without its children's."""
    return {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}


def replace_tensor(module: nn.Module, name: str, value: Shaped[Tensor, "..."]) -> None:
    """Put other values, perhaps on another device, in the place of a parameter or buffer; tags stay.

    Args:
        module: whose own parameter or buffer it is.
        name: the attribute.
        value: what takes its place, of any shape.
    """
    old = getattr(module, name)
    if isinstance(old, nn.Parameter):
        value = tag(nn.Parameter(value, requires_grad=old.requires_grad), *tags_of(old))
    setattr(module, name, value)


def initialise_module(module: nn.Module, seed: int, name: str) -> None:
    """Fill a module's own tensors (not its children's), which are on the CPU; the global generator is left alone.

    Args:
        module: whose own parameters and buffers are drawn.
        seed: of all random numbers.
        name: of the module in the model: each has random numbers of its own.
    """
    if not own_tensors(module):
        return
    assert hasattr(module, "reset_parameters"), f"{type(module).__name__} has tensors and no reset_parameters()"
    state = torch.get_rng_state()
    try:
        torch.default_generator.manual_seed(seed_of("weights", seed, name))
        with torch.no_grad():
            cast(nn.Linear, module).reset_parameters()
    finally:
        torch.set_rng_state(state)


def initialise(model: nn.Module, seed: int) -> None:
    """Fill all tensors of a model that is whole and on the CPU; nothing where it is on the meta device."""
    # torch does not say what `named_modules` gives.
    for name, module in cast("Iterator[tuple[str, nn.Module]]", model.named_modules()):
        if not any(tensor.is_meta for tensor in own_tensors(module).values()):
            initialise_module(module, seed, name)
