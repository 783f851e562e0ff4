"""A prompt's keys and values, computed once without gradients and read by passes with gradients."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from framework.core.errors import ConfigError
from framework.gbc.language_models.agent_parameters import Reader
from framework.gbc.language_models.local import pad_left
from framework.gbc.language_models.logits import logits_at
from framework.gbc.language_models.lora import reading


class _FrozenLayer(DynamicLayer):
    """Gives prefix and new states together and keeps only the prefix: a layer that is run again gets the same."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        assert self.keys is not None
        assert self.values is not None
        return torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)


@torch.no_grad()
def frozen_prefix(
    model: PreTrainedModel,
    prefixes: Sequence[Sequence[int]],
    *,
    batch_size: int,
    readers: Sequence[Reader | None] = (),
) -> tuple[DynamicCache, Tensor]:
    """The cache of prefixes, left-padded, and its mask (int64, `batch prefix`).

    Equal prefixes that are read alike are computed once. Every layer keeps the whole prefix; the masks do the sliding
    windows.

    Args:
        model: the language model.
        prefixes: token ids, at least one each.
        batch_size: most prefixes in one pass.
        readers: how they are read, if not all as they are.

    Raises:
        ConfigError: a model with layers that keep other states than keys and values.
    """
    embed = model.get_input_embeddings()
    rows: dict[object, int] = {}
    reads, adapters, chosen = [], [], []
    for prefix, reader in zip(prefixes, readers or [None] * len(prefixes), strict=True):
        key = (tuple(prefix), None if reader is None else reader.prefix_key(len(prefix)))
        if key not in rows:
            rows[key] = len(rows)
            embeddings = embed(torch.tensor(list(prefix), device=model.device))
            reads.append(embeddings if reader is None else reader.read(embeddings))
            adapters.append(None if reader is None else reader.adapter)
        chosen.append(rows[key])
    _, mask = pad_left([[0] * len(read) for read in reads], 0, model.device)
    padded = pad_sequence(reads, batch_first=True, padding_side="left")
    position_ids = (mask.cumsum(dim=1) - 1).clamp(min=0)
    parts: list[DynamicCache] = []
    for start in range(0, len(reads), batch_size):
        part = slice(start, start + batch_size)
        cache = DynamicCache()
        with reading(adapters[part]):
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
    frozen = DynamicCache()
    for layers in zip(*(part.layers for part in parts), strict=True):
        if not all(isinstance(layer, DynamicLayer) for layer in layers):
            hint = "use a prefix of 0 tokens, or a model with attention in every layer"
            raise ConfigError(f"a prefix cannot be cached for {type(model).__name__}", hint=hint)
        keys, values = (torch.cat([getattr(layer, name) for layer in layers])[index] for name in ("keys", "values"))
        frozen.layers.append(_FrozenLayer(keys, values))
    return frozen, mask[index]


@contextmanager
def checkpointed_layers(model: PreTrainedModel) -> Iterator[None]:
    """Within it, each decoder layer keeps only its input and runs again in the backward pass.

    Not transformers' own: that one drops the cache.
    """
    layers = list(model.get_decoder().layers)  # pyright: ignore[reportCallIssue, reportArgumentType]
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
