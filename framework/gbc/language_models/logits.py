"""Logits where they are asked for, a few positions at a time: of a large vocabulary they are a pass's largest tensor.

What the layers give for the chosen positions is `hidden / vocab` of the size of their logits (ours). From there logits
are computed in chunks, and either differentiated at once (`map_logits`, for gradients of the input) or computed once
more on the way back (`over_chunks`, for losses that are trained).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]
from transformers import PreTrainedModel

from framework.core.devices import to_device
from framework.core.errors import ConfigError
from framework.gbc.language_models.lora import Adapter, active_adapters
from framework.gbc.language_models.transformers_compat import logits_of, vocabulary_size

CHUNK_BYTES = 64 * 2**20
"""Of the logits that are computed together, in float32. Gradients and exponentials take several times that."""


def consecutive_positions(firsts: Sequence[int], counts: Sequence[int]) -> Int[Tensor, "batch position"]:
    """Consecutive positions of each row, as many as the longest has; the others repeat their last."""
    steps = torch.arange(max(counts))
    return torch.stack([first + steps.clamp(max=count - 1) for first, count in zip(firsts, counts, strict=True)])


def hidden_at(
    model: PreTrainedModel, positions: Int[Tensor, "batch position"], **inputs: object
) -> Float[Tensor, "batch position hidden"]:
    """What the head would read at chosen positions of each row; it computes no logits.

    Args:
        model: the language model.
        positions: of each row; of a prefix that is only read, none.
        inputs: of the model.

    Raises:
        ConfigError: a model whose output embeddings are not a module.
    """
    head = cast(object, model.get_output_embeddings())
    if not isinstance(head, nn.Module):
        raise ConfigError(f"{type(model).__name__} gives no logits", hint="use a causal language model")
    found: list[Float[Tensor, "batch position hidden"]] = []

    def pick(_: nn.Module, read: tuple[Float[Tensor, "batch token hidden"]]) -> Tensor:
        index = to_device(positions, read[0].device)[..., None].expand(-1, -1, read[0].shape[2])
        found.append(read[0].gather(1, index))
        return read[0][:, :0]

    hook = head.register_forward_pre_hook(pick)
    try:
        model(**inputs)
    finally:
        hook.remove()
    return found[0]


def positions_at_once(rows: int, vocabulary: int) -> int:
    """How many positions of each row have their logits computed together."""
    return max(1, CHUNK_BYTES // (4 * max(1, rows * vocabulary)))


@dataclass(frozen=True)
class LogitChunk:
    """Logits of some of the positions.

    Attributes:
        positions: of the row, which these are.
        read: what the head reads; where gradients are on, the graph of the logits ends there.
        logits: in float32 or wider.
    """

    positions: slice
    read: Float[Tensor, "batch position hidden"]
    logits: Float[Tensor, "batch position vocab"]


def map_logits(
    model: PreTrainedModel,
    hidden: Float[Tensor, "batch position hidden"],
    function: Callable[[LogitChunk], tuple[Shaped[Tensor, "batch position ..."], ...]],
    *,
    adapters: Sequence[Adapter | None] = (),
) -> tuple[Shaped[Tensor, "batch position ..."], ...]:
    """What a function gives for the logits of all positions, without all of these logits at a time.

    Args:
        model: the language model.
        hidden: what its head reads; the function's gradients end in `LogitChunk.read`.
        function: of some positions; its results have an entry for each and no graph.
        adapters: that the rows are passed with.
    """

    def compute(positions: slice) -> tuple[Shaped[Tensor, "batch position ..."], ...]:
        # Contiguous: with a view, a CPU copies the head's weights for each row.
        read = hidden[:, positions].detach().contiguous().requires_grad_(torch.is_grad_enabled())
        return function(LogitChunk(positions, read, _wide(logits_of(model, read))))

    with active_adapters(adapters):
        parts = [compute(positions) for positions in _chunks(model, hidden)]
    return tuple(torch.cat(each, dim=1) for each in zip(*parts, strict=True))


def over_chunks(
    model: PreTrainedModel,
    hidden: Float[Tensor, "batch position hidden"],
    function: Callable[[slice, Float[Tensor, "batch position vocab"]], Float[Tensor, "batch position ..."]],
    *,
    adapters: Sequence[Adapter | None] = (),
) -> Float[Tensor, "batch position ..."]:
    """A differentiable function of the logits of all positions; where these are many, they are computed twice.

    Args:
        model: the language model.
        hidden: what its head reads; gradients reach it, and the adapters.
        function: of some positions and their logits, in float32 or wider.
        adapters: that the rows are passed with.
    """
    chunks = list(_chunks(model, hidden))

    def compute(positions: slice, read: Float[Tensor, "batch position hidden"]) -> Float[Tensor, "batch position ..."]:
        with active_adapters(adapters):
            return function(positions, _wide(logits_of(model, read)))

    if len(chunks) == 1:
        return compute(chunks[0], hidden)
    parts = [
        cast(
            Tensor,
            checkpoint(compute, each, hidden[:, each].contiguous(), use_reentrant=False, preserve_rng_state=False),
        )
        for each in chunks
    ]
    return torch.cat(parts, dim=1)


def _chunks(model: PreTrainedModel, hidden: Float[Tensor, "batch position hidden"]) -> Iterator[slice]:
    rows, count = hidden.shape[:2]
    step = positions_at_once(rows, vocabulary_size(model))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _wide(logits: Float[Tensor, "batch position vocab"]) -> Float[Tensor, "batch position vocab"]:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
