"""A prompt's keys and values, computed once without gradients and read by passes with gradients.

The prefix-based gradient is published (Yang et al. 2026, arXiv 2606.28187); batches of prefixes that differ are ours.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]
from transformers import DynamicCache, PreTrainedModel

from framework.gbc.language_models.agent_parameters import BoundParameters
from framework.gbc.language_models.generation import pad_left
from framework.gbc.language_models.logits import logits_at
from framework.gbc.language_models.lora import Adapter, active_adapters
from framework.gbc.language_models.transformers_compat import (
    cached_states,
    decoder_layers,
    embeddings_of,
    frozen_cache,
)
from framework.gbc.shapes import Embeddings


@torch.no_grad()
def frozen_prefix(
    model: PreTrainedModel,
    prefixes: Sequence[Sequence[int]],
    *,
    batch_size: int,
    bound: Sequence[BoundParameters | None] = (),
) -> tuple[DynamicCache, Int[Tensor, "batch prefix"]]:
    """The cache of prefixes, left-padded, and its mask, int64.

    Equal prefixes that are read alike are computed once. Every layer keeps the whole prefix; the masks do the sliding
    windows.

    Args:
        model: the language model.
        prefixes: token ids, at least one each.
        batch_size: most prefixes in one pass.
        bound: each prefix's agent parameters, where some have any; by default none.

    Raises:
        ConfigError: a model with layers that keep other states than keys and values.
    """
    rows: dict[object, int] = {}
    reads: list[Embeddings] = []
    adapters: list[Adapter | None] = []
    chosen: list[int] = []
    for prefix, parameters in zip(prefixes, bound or [None] * len(prefixes), strict=True):
        key = (tuple(prefix), None if parameters is None else parameters.prefix_key(len(prefix)))
        if key not in rows:
            rows[key] = len(rows)
            embeddings = embeddings_of(model, torch.tensor(list(prefix), device=model.device))
            reads.append(embeddings if parameters is None else parameters.apply(embeddings))
            adapters.append(None if parameters is None else parameters.adapter)
        chosen.append(rows[key])
    _, mask = pad_left([[0] * len(read) for read in reads], 0, model.device)
    padded = pad_sequence(reads, batch_first=True, padding_side="left")
    position_ids = (mask.cumsum(dim=1) - 1).clamp(min=0)
    parts: list[DynamicCache] = []
    for start in range(0, len(reads), batch_size):
        part = slice(start, start + batch_size)
        cache = DynamicCache()
        with active_adapters(adapters[part]):
            logits_at(
                model,
                torch.zeros(len(padded[part]), 0, dtype=torch.long),
                inputs_embeds=padded[part],
                attention_mask=mask[part],
                position_ids=position_ids[part],
                past_key_values=cache,
                use_cache=True,
            )
        parts.append(cache)
    index = torch.tensor(chosen, device=model.device)
    states = [
        (torch.cat([keys for keys, _ in layers])[index], torch.cat([values for _, values in layers])[index])
        for layers in zip(*map(cached_states, parts), strict=True)
    ]
    return frozen_cache(states), mask[index]


@contextmanager
def checkpointed_layers(model: PreTrainedModel) -> Generator[None, None, None]:
    """Within it, each decoder layer keeps only its input and runs again in the backward pass.

    Not transformers' own: that one drops the cache.
    """
    layers = decoder_layers(model)
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
