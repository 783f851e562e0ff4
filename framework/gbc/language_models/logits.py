"""Logits where they are asked for, and nowhere else: the last layer of a large vocabulary is expensive (ours)."""

from collections.abc import Sequence
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
    output_embeddings = cast(object, model.get_output_embeddings())
    if not isinstance(output_embeddings, nn.Module):
        raise ConfigError(f"{type(model).__name__} gives no logits", hint="use a causal language model")

    def pick(_: nn.Module, read: tuple[Float[Tensor, "batch token hidden"]]) -> Float[Tensor, "batch position hidden"]:
        index = positions.to(read[0].device)[..., None].expand(-1, -1, read[0].shape[2])
        return read[0].gather(1, index)

    hook = output_embeddings.register_forward_pre_hook(pick)
    try:
        return model(**inputs).logits
    finally:
        hook.remove()
