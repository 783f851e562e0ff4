"""Parameter tags: a model marks its parameters where it makes them, an optimizer chooses by the marks later."""

from typing import TypeVar

from torch import nn

NO_DECAY = "no_decay"
"""Norm scales, biases and embeddings: kept out of weight decay."""

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def tag(parameter: nn.Parameter, *tags: str) -> nn.Parameter:
    """Add tags to a parameter and return it."""
    parameter.framework_tags = tags_of(parameter) | frozenset(tags)  # type: ignore[attr-defined]
    return parameter


def tags_of(parameter: nn.Parameter) -> frozenset[str]:
    """Tags of a parameter; empty when it has none."""
    return getattr(parameter, "framework_tags", frozenset())


def tag_all(module: ModuleT, *tags: str) -> ModuleT:
    """Add tags to every parameter of a module and return the module."""
    for parameter in module.parameters():
        tag(parameter, *tags)
    return module
