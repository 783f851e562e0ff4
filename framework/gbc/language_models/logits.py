"""Logits where they are asked for, and nowhere else: the last layer of a large vocabulary is expensive (ours)."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from framework.core.errors import ConfigError


def consecutive_positions(firsts: Sequence[int], counts: Sequence[int]) -> Int[Tensor, "batch position"]:
    """Consecutive positions of each row, as many as the longest has; the others repeat their last."""
    steps = torch.arange(max(counts))
    return torch.stack([first + steps.clamp(max=count - 1) for first, count in zip(firsts, counts, strict=True)])


def logits_at(
    model: PreTrainedModel, positions: Int[Tensor, "batch position"], **inputs: object
) -> Float[Tensor, "batch position vocab"]:
    """Logits at chosen positions of each row.

    `logits_to_keep` of transformers keeps the same last positions of all rows, and gives the output embeddings a slice
    that is not contiguous: on a CPU, a product with a matrix of the weights' size for each row.

    Args:
        model: its output embeddings read the chosen positions alone.
        positions: of each row; of a prefix that is only read, none.
        inputs: of the model.

    Raises:
        ConfigError: a model whose output embeddings are not a module.
    """
    with _head_reads(model, lambda hidden: _pick(hidden, positions)):
        return model(**inputs).logits


@dataclass(frozen=True)
class CutLogits:
    """Logits whose graph is cut at the head's input, which is `hidden / vocab` of their size.

    Attributes:
        hidden: what the layers give the head, in their graph.
        read: the same values, which the head reads; where gradients are on, in the head's graph and not in theirs.
        logits: of them.
    """

    hidden: Float[Tensor, "batch position hidden"]
    read: Float[Tensor, "batch position hidden"]
    logits: Float[Tensor, "batch position vocab"]


def cut_logits_at(model: PreTrainedModel, positions: Int[Tensor, "batch position"], **inputs: object) -> CutLogits:
    """As `logits_at`, in two graphs: gradients of logits reach `read`, those of `hidden` the model's inputs.

    Args:
        model: its output embeddings read the chosen positions alone.
        positions: of each row.
        inputs: of the model.

    Raises:
        ConfigError: a model whose output embeddings are not a module.
    """
    ends: list[Float[Tensor, "batch position hidden"]] = []

    def cut(hidden: Float[Tensor, "batch token hidden"]) -> Float[Tensor, "batch position hidden"]:
        picked = _pick(hidden, positions)
        ends.extend((picked, picked.detach().requires_grad_(torch.is_grad_enabled())))
        return ends[1]

    with _head_reads(model, cut):
        logits = model(**inputs).logits
    hidden, read = ends
    return CutLogits(hidden, read, logits)


def _pick(
    hidden: Float[Tensor, "batch token hidden"], positions: Int[Tensor, "batch position"]
) -> Float[Tensor, "batch position hidden"]:
    index = positions.to(hidden.device)[..., None].expand(-1, -1, hidden.shape[2])
    return hidden.gather(1, index)


@contextmanager
def _head_reads(
    model: PreTrainedModel, choose: Callable[[Float[Tensor, "batch token hidden"]], Tensor]
) -> Generator[None, None, None]:
    """Within it the model's head reads what is chosen of its input. Raises ConfigError."""
    output_embeddings = cast(object, model.get_output_embeddings())
    if not isinstance(output_embeddings, nn.Module):
        raise ConfigError(f"{type(model).__name__} gives no logits", hint="use a causal language model")

    def pick(_: nn.Module, read: tuple[Float[Tensor, "batch token hidden"]]) -> Tensor:
        return choose(read[0])

    hook = output_embeddings.register_forward_pre_hook(pick)
    try:
        yield
    finally:
        hook.remove()
