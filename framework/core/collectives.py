"""Agreement between the processes of a run; with one process there is nothing to agree on."""

from typing import TypeVar, cast

import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

Value = TypeVar("Value")


def rank_and_size() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def all_gather_object(value: Value, group: dist.ProcessGroup | None = None) -> list[Value]:
    """Every rank's value, by rank, on every rank."""
    _, size = rank_and_size()
    if size == 1:
        return [value]
    values: list[Value | None] = [None] * size
    # torch has no types for it.
    dist.all_gather_object(values, value, group=group)  # pyright: ignore[reportUnknownMemberType]
    return cast("list[Value]", values)


def mean_over_ranks(value: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """The mean of every rank's tensor, on every rank; on a GPU the host does not wait for it."""
    _, size = rank_and_size()
    if size == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)  # pyright: ignore[reportUnknownMemberType]
    return total / size


def broadcast_object(value: Value, group: dist.ProcessGroup | None = None) -> Value:
    """Rank 0's value, on every rank."""
    if rank_and_size()[1] == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, group=group)
    return values[0]
