"""Logits where they are asked for, and nowhere else: with a vocabulary of 150,000 the head is dear."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from framework.core.errors import ConfigError


def places(firsts: Sequence[int], counts: Sequence[int]) -> Int[Tensor, "batch place"]:
    """Consecutive places of each row, as many as the longest has; the others repeat their last."""
    steps = torch.arange(max(counts))
    return torch.stack([first + steps.clamp(max=count - 1) for first, count in zip(firsts, counts, strict=True)])


def logits_at(
    model: PreTrainedModel, chosen: Int[Tensor, "batch place"], **inputs: Any
) -> Float[Tensor, "batch place vocabulary"]:
    """Logits at chosen places of each row.

    `logits_to_keep` of transformers keeps the same last places of all rows, and gives the head a slice that is not
    contiguous: on a CPU, a product with a matrix of the weights' size for each row.

    Args:
        model: its head reads the chosen places alone.
        chosen: places; of a prefix that is only read, none.
        inputs: of the model.

    Raises:
        ConfigError: a model whose head is no module.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Module):
        raise ConfigError(f"{type(model).__name__} has no head", hint="use a causal language model")

    def pick(_: nn.Module, read: tuple[Tensor]) -> Tensor:
        index = chosen.to(read[0].device)[..., None].expand(-1, -1, read[0].shape[2])
        return read[0].gather(1, index)

    hook = head.register_forward_pre_hook(pick)
    try:
        return model(**inputs).logits
    finally:
        hook.remove()
