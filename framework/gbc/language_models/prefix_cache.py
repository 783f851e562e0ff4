"""A prompt's keys and values, computed once without gradients and read by all passes that follow.

The prefix-based gradient is published (Yang et al. 2026, arXiv 2606.28187); batches of prefixes that differ, and
keeping them from one pass to the next, across steps and tasks, are ours.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Generator, Hashable, Sequence
from contextlib import contextmanager
from functools import partial
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]
from transformers import DynamicCache, PreTrainedModel

from framework.core.compat.torch_compat import version_of
from framework.core.devices import free_bytes, tensor_on
from framework.core.errors import ConfigError
from framework.gbc.language_models.agent_parameters import BoundParameters
from framework.gbc.language_models.logits import hidden_at
from framework.gbc.language_models.lora import active_adapters
from framework.gbc.language_models.transformers_compat import (
    States,
    cached_states,
    decoder_layers,
    embeddings_of,
    frozen_cache,
)
from framework.gbc.shapes import floats

DEFAULT_BYTES = 512 * 2**20
_SHARE_OF_FREE = 0.1
_PLAIN = (Tensor, nn.Parameter)


class PromptStates:
    """Keys and values of the prompts that a model read, as long as its weights are the same; the oldest give way.

    A change of the weights is seen by their version (every operation in place but through `.data`), their type and
    place, and by the first and last value of each. Sharded and fake weights are not looked at: nothing is kept then.

    Attributes:
        max_bytes: most that are kept; never more than a tenth of the memory that is free. 0 keeps nothing.
        num_bytes: kept now.
        num_read: prompts that had to be read, so far.
    """

    def __init__(self, max_bytes: int = DEFAULT_BYTES) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self.num_read = 0
        self._stamp: Hashable = None
        self._entries: OrderedDict[Hashable, list[tuple[States, States]]] = OrderedDict()

    def clear(self) -> None:
        """Forgets all prompts."""
        self._entries.clear()
        self.num_bytes = 0

    def prepare(self, model: PreTrainedModel) -> None:
        """Forgets all prompts if the model's weights are others than when they were read."""
        stamp = _stamp(model) if self.max_bytes else None
        if stamp is None or stamp != self._stamp:
            self.clear()
        self._stamp = stamp

    def find(self, key: Hashable) -> list[tuple[States, States]] | None:
        """The keys and values of each layer, `1 heads prefix width`; None for a prompt that is not kept."""
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)

    def keep(self, key: Hashable, states: list[tuple[States, States]]) -> None:
        """Keeps the states of a prompt, if the bound allows."""
        if self._stamp is None:
            return
        free, size = free_bytes(states[0][0].device), _size(states)
        most = self.max_bytes if free is None else min(self.max_bytes, int(_SHARE_OF_FREE * free) + self.num_bytes)
        if size > most:
            return
        while self._entries and self.num_bytes + size > most:
            _, gone = self._entries.popitem(last=False)
            self.num_bytes -= _size(gone)
        self._entries[key] = states
        self.num_bytes += size


_STATES: WeakKeyDictionary[PreTrainedModel, PromptStates] = WeakKeyDictionary()


def prompt_states(model: PreTrainedModel) -> PromptStates:
    """The prompts that are kept of a model, for as long as it lives."""
    return _STATES.setdefault(model, PromptStates())


@torch.no_grad()
def frozen_prefix(
    model: PreTrainedModel, prefixes: Sequence[Sequence[int]], *, bound: Sequence[BoundParameters | None] = ()
) -> tuple[DynamicCache, list[int]]:
    """The cache of prefixes, left-padded, and the length of each, soft prompts included.

    Equal prefixes that are read alike are read once, by this pass and by later ones (`PromptStates`). Each is read by
    itself, so that its values do not depend on the others. Every layer keeps the whole prefix; the masks do the sliding
    windows.

    Args:
        model: the language model.
        prefixes: token ids, at least one each.
        bound: each prefix's agent parameters, where some have any; by default none.

    Raises:
        ConfigError: a model that does not keep keys and values, or keeps other states besides.
    """
    kept = prompt_states(model)
    kept.prepare(model)
    rows: dict[Hashable, int] = {}
    found: list[list[tuple[States, States]]] = []
    digests: dict[int, str] = {}
    chosen: list[int] = []
    for prefix, parameters in zip(prefixes, bound or [None] * len(prefixes), strict=True):
        key = (tuple(prefix), None if parameters is None else _key(parameters, len(prefix), digests))
        if key not in rows:
            rows[key] = len(rows)
            states = kept.find(key)
            if states is None:
                states = _read(model, prefix, parameters)
                kept.num_read += 1
                kept.keep(key, states)
            found.append(states)
        chosen.append(rows[key])
    lengths = [states[0][0].shape[2] for states in found]
    index = tensor_on(model.device, chosen)
    layers = [
        (_batch([keys for keys, _ in layer], index), _batch([values for _, values in layer], index))
        for layer in zip(*found, strict=True)
    ]
    return frozen_cache(layers), [lengths[row] for row in chosen]


def _read(
    model: PreTrainedModel, prefix: Sequence[int], parameters: BoundParameters | None
) -> list[tuple[States, States]]:
    """Keys and values of each layer of one prefix."""
    embeddings = embeddings_of(model, tensor_on(model.device, prefix))
    if parameters is not None:
        embeddings = parameters.apply(embeddings)
    cache = DynamicCache()
    with active_adapters([None if parameters is None else parameters.adapter]):
        hidden_at(
            model,
            torch.zeros(1, 0, dtype=torch.long),
            inputs_embeds=embeddings[None],
            past_key_values=cache,
            use_cache=True,
        )
    states = cached_states(cache)
    if not states:
        hint = "use a prefix of 0 tokens, or another model"
        raise ConfigError(f"{type(model).__name__} keeps nothing of a prefix", hint=hint)
    return states


def _batch(states: Sequence[States], index: Int[Tensor, "_"]) -> Float[Tensor, "_ heads _ width"]:
    """Keys or values of a layer for the rows of a batch, padded on the left."""
    if len(states) == 1:
        return states[0].expand(len(index), -1, -1, -1)
    width = max(each.shape[2] for each in states)
    return torch.cat([nn.functional.pad(each, (0, 0, width - each.shape[2], 0)) for each in states])[index]


def _key(parameters: BoundParameters, stop: int, digests: dict[int, str]) -> Hashable:
    """Equal for prefixes of `stop` tokens that, if equal, are read alike.

    Args:
        parameters: with which the prefix is read.
        stop: its tokens.
        digests: of tensors that were seen before, by their identity.
    """
    adapter = parameters.adapter
    tensors = [parameters.soft_prompt, None if adapter is None else adapter.owner.values.get(parameters.agent)]
    name = None if adapter is None else adapter.name
    return parameters.prefix_key(stop), name, *(None if each is None else _digest(each, digests) for each in tensors)


def _digest(values: Float[Tensor, "..."], digests: dict[int, str]) -> str:
    if id(values) not in digests:
        flat = values.detach().contiguous().flatten().view(torch.uint8).cpu()
        digests[id(values)] = hashlib.blake2b(flat.numpy().data, digest_size=16).hexdigest()
    return digests[id(values)]


def _stamp(model: PreTrainedModel) -> Hashable:
    """What changes with the weights; None for weights that are not all here as they are."""
    tensors = [*model.parameters(), *model.buffers()]
    if any(type(each) not in _PLAIN or each.is_meta or not each.numel() for each in tensors):
        return None
    ends = torch.cat([each.detach().reshape(-1)[:: max(1, each.numel() - 1)].float() for each in tensors])
    versions = tuple(map(version_of, tensors))
    return versions, tuple(floats(ends)), model.dtype, str(model.device)


def _size(states: Sequence[tuple[States, States]]) -> int:
    return sum(each.numel() * each.element_size() for pair in states for each in pair)


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
