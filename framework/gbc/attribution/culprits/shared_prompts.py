"""A local model for many tasks of one system: each prompt is read once, and its keys and values serve all requests.

Greedy answers are remembered, so that what is asked twice costs nothing.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from framework.core.errors import ConfigError, DataError
from framework.gbc.language_models.generation import pad_left
from framework.gbc.language_models.interface import Reply, Request, stop_in
from framework.gbc.language_models.local import LocalModel
from framework.gbc.language_models.prompt_encoding import EncodedPrompt
from framework.gbc.language_models.transformers_compat import States, cached_states

_MOST_CACHES = 256
"""Prompts whose keys and values are kept; the oldest goes first."""


@dataclass(frozen=True, kw_only=True)
class TokenFit:
    """How well the tokens of a text fit to what stands before them.

    Attributes:
        log_probs: log p of each token, in nats.
        surprise: log p of the likeliest token in its place minus that, 0 or more.
        likeliest: the likeliest token in its place.
    """

    log_probs: Float[Tensor, "token"]
    surprise: Float[Tensor, "token"]
    likeliest: Int[Tensor, "token"]


class SharedPrompts(LocalModel):
    """A local model that keeps the states of prompts, and its answers.

    Args:
        model: greedy, without agents' own parameters.

    Raises:
        ConfigError: a model that samples, or one with soft prompts, gates or adapters.
    """

    def __init__(self, model: LocalModel) -> None:
        if model.config.temperature:
            raise ConfigError(f"temperature {model.config.temperature}", hint="use 0: only then answers repeat")
        if model.soft or model.gates or model.config.adapters is not None:
            problem = "a model with soft prompts, gates or adapters"
            raise ConfigError(problem, hint="share prompts without them")
        super().__init__(model.model, model.tokenizer, model.config)
        # By the whole request: a reply names the steps whose messages it read.
        self.known: dict[Request, Reply | DataError] = {}
        self._states: dict[tuple[int, ...], list[tuple[States, States]]] = {}

    def reply(self, requests: Sequence[Request]) -> list[Reply | DataError]:
        """The answers to requests, in their order; the model is asked for those that are new."""
        requests = [replace(request, seed=0) for request in requests]
        groups: dict[tuple[tuple[int, ...], int], list[tuple[Request, EncodedPrompt]]] = defaultdict(list)
        for request in dict.fromkeys(each for each in requests if each not in self.known):
            try:
                encoded = self.encode(request)
            except DataError as error:
                self.known[request] = error
                continue
            groups[encoded.ids[: self.shared_length(encoded)], request.max_new_tokens].append((request, encoded))
        for (prefix, length), asked in groups.items():
            asked.sort(key=lambda each: len(each[1].ids))
            for start in range(0, len(asked), self.config.batch_size):
                some = asked[start : start + self.config.batch_size]
                rows = [encoded.ids[len(prefix) :] for _, encoded in some]
                said = self._continue(prefix, rows, [request.stop for request, _ in some], length)
                for (request, encoded), output in zip(some, said, strict=True):
                    self.known[request] = self._reply(encoded, output, request.stop)
        return [self.known[request] for request in requests]

    def fit(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[TokenFit]:
        """How well tokens fit to what stands before them.

        Args:
            rows: for each a prefix of one token or more whose states are kept, and the tokens that follow it.
        """
        return token_fit(self, rows)

    def forget_states(self) -> None:
        """Drops the states of prompts; what is asked next reads its prompt again."""
        self._states.clear()

    def shared_length(self, encoded: EncodedPrompt) -> int:
        """The number of first tokens that belong to the prompt; at least one token stays to be read."""
        prompt = next((block for block in encoded.blocks if block.kind == "prompt"), None)
        return 1 if prompt is None else max(1, min(prompt.tokens[1], len(encoded.ids) - 2))

    @torch.no_grad()
    def _continue(
        self, prefix: tuple[int, ...], rows: Sequence[Sequence[int]], stops: Sequence[Sequence[str]], length: int
    ) -> list[tuple[int, ...]]:
        """Greedy new tokens after prefix and each row."""
        logits, cache, mask = self.read(prefix, rows)
        said: list[list[int]] = [[] for _ in rows]
        going = set(range(len(rows)))
        for number in range(length):
            following = logits[:, -1].argmax(dim=-1)
            for index in tuple(going):
                said[index].append(int(following[index]))
                ended = said[index][-1] in self._ends
                if ended or (stops[index] and stop_in(self.decode(said[index]), stops[index]) is not None):
                    going.discard(index)
            if not going or number + 1 == length:
                break
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            positions = mask.sum(dim=1, keepdim=True) - 1
            logits = self.model(
                input_ids=following[:, None], attention_mask=mask, position_ids=positions, past_key_values=cache
            ).logits
        return [tuple(each) for each in said]

    def read(
        self, prefix: tuple[int, ...], rows: Sequence[Sequence[int]]
    ) -> tuple[Float[Tensor, "batch token vocab"], DynamicCache, Int[Tensor, "batch seen"]]:
        """Logits of rows, left-padded, after a prefix; the cache, and its mask."""
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self._prefix_states(prefix)):
            wide = [states.expand(len(rows), -1, -1, -1) for states in (keys, values)]
            cache.update(wide[0], wide[1], layer)  # pyright: ignore[reportUnknownMemberType]
        ids, own = pad_left(rows, self._ends[0] if self._ends else 0, self.device)
        mask = torch.cat([own.new_ones(len(rows), len(prefix)), own], dim=1)
        positions = (mask.cumsum(dim=1) - 1)[:, len(prefix) :].clamp(min=0)
        result = self.model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache)
        return result.logits, cache, mask

    def _prefix_states(self, prefix: tuple[int, ...]) -> list[tuple[States, States]]:
        if not prefix:
            return []
        if prefix not in self._states:
            if len(self._states) >= _MOST_CACHES:
                del self._states[next(iter(self._states))]
            cache = DynamicCache()
            ids = torch.tensor([prefix], device=self.device)
            self.model(input_ids=ids, past_key_values=cache, logits_to_keep=1)
            self._states[prefix] = cached_states(cache)
        return self._states[prefix]


@torch.no_grad()
def token_fit(model: LocalModel, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[TokenFit]:
    """How well tokens fit to what stands before them; equal prefixes are read once where the model keeps them.

    Args:
        model: the language model.
        rows: for each a prefix of one token or more, and the tokens that follow it.
    """
    shared = model if isinstance(model, SharedPrompts) else None
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, (prefix, _) in enumerate(rows):
        groups[tuple(prefix[:-1]) if shared else ()].append(index)
    found: dict[int, TokenFit] = {}
    for prefix, indices in groups.items():
        indices.sort(key=lambda index: len(rows[index][0]) + len(rows[index][1]))
        for start in range(0, len(indices), model.config.batch_size):
            some = indices[start : start + model.config.batch_size]
            read = [[*rows[index][0][len(prefix) :], *rows[index][1]] for index in some]
            inputs = [row[:-1] for row in read]
            logits = shared.read(prefix, inputs)[0] if shared else _plain_logits(model, inputs)
            for index, row, each in zip(some, read, logits, strict=True):
                count = len(rows[index][1])
                log_probs = each[-count:].float().log_softmax(dim=-1)
                picks = torch.tensor(row[-count:], device=model.device)
                own = log_probs.gather(1, picks[:, None])[:, 0]
                best, likeliest = log_probs.max(dim=-1)
                found[index] = TokenFit(log_probs=own.cpu(), surprise=(best - own).cpu(), likeliest=likeliest.cpu())
    return [found[index] for index in range(len(rows))]


def _plain_logits(model: LocalModel, rows: Sequence[Sequence[int]]) -> Float[Tensor, "batch token vocab"]:
    ids, mask = pad_left(rows, 0, model.device)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    return model.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
