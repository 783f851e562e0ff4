"""Batched generation: left padding, seeded sampling and end tokens."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
)

from framework.core.devices import tensor_on
from framework.core.random.philox import WORDS, Seeds, gumbel_of, random_words, stream_seeds
from framework.gbc.language_models.interface import stop_in
from framework.gbc.shapes import Mask, TokenIds, ints


def pad_left(rows: Sequence[Sequence[int]], padding: int, device: torch.device) -> tuple[TokenIds, Mask]:
    """Token ids and their mask, both int64; the padding stands before the tokens.

    Args:
        rows: token ids of each row, at least one row.
        padding: the token that fills up.
        device: of the result.
    """
    width = max(map(len, rows))
    ids = tensor_on(device, [[padding] * (width - len(row)) + list(row) for row in rows])
    mask = tensor_on(device, [[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


_AHEAD = 16
"""New tokens whose noise is drawn together, if that is no more than these numbers: the generator takes some 200
operations, however little it draws."""
_NUMBERS = 2**17


class GumbelNoise(LogitsProcessor):
    """Adds Gumbel noise to the logits: their largest is then a sample (Gumbel 1954).

    Args:
        seeds: one for each row of the batch. A row's noise is a function of its seed, of the number of the new token
            and of the vocabulary's token alone, whatever the batch and the device: it is drawn where the logits are.
        temperature: of the softmax that is sampled from, above 0.
    """

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        self.seeds, self.temperature = seeds, temperature
        self._num_drawn = 0
        self._streams: Seeds | None = None
        self._ahead: list[Float[Tensor, "batch vocab"]] = []

    def __call__(self, input_ids: TokenIds, scores: Float[Tensor, "batch vocab"]) -> Float[Tensor, "batch vocab"]:
        """Noisy logits of the next token."""
        if not self._ahead:
            self._ahead = self._draw(scores.shape[1], scores.device)
        return scores.float() + self.temperature * self._ahead.pop(0)

    def _draw(self, vocabulary: int, device: torch.device) -> list[Float[Tensor, "batch vocab"]]:
        """The noise of the next tokens."""
        if self._streams is None:
            self._streams = stream_seeds(self.seeds, device)
        blocks = -(-vocabulary // WORDS)
        count = min(_AHEAD, max(1, _NUMBERS // (len(self.seeds) * blocks * WORDS)))
        words = random_words(self._streams, count * blocks, start=self._num_drawn * blocks)
        self._num_drawn += count
        drawn = rearrange(
            [gumbel_of(each) for each in words], "word row (token block) -> token row (word block)", token=count
        )
        return list(drawn[:, :, :vocabulary])


class StopTexts(StoppingCriteria):
    """Ends a row once its new tokens hold one of its texts.

    Args:
        texts: of each row.
        decode: from new tokens to their text.
        num_read: tokens of a row that are not new.
    """

    def __init__(
        self, texts: Sequence[Sequence[str]], decode: Callable[[Sequence[int]], str], *, num_read: int
    ) -> None:
        self.texts, self.decode, self.num_read = texts, decode, num_read

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride] - a tensor, not the legacy BoolTensor
        self, input_ids: TokenIds, scores: object, **kwargs: object
    ) -> Bool[Tensor, "batch"]:
        """Which rows are done."""
        done = [
            bool(texts) and stop_in(self.decode(ints(row)), texts) is not None
            for row, texts in zip(input_ids[:, self.num_read :].cpu(), self.texts, strict=True)
        ]
        return tensor_on(input_ids.device, done, torch.bool)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end an answer: those of the model's generation config, then the tokenizer's."""
    declared: object = getattr(model.generation_config, "eos_token_id", None)
    tokens = [*cast(Sequence[object], declared)] if isinstance(declared, list | tuple) else [declared]
    tokens.append(tokenizer.eos_token_id)
    return [token for token in dict.fromkeys(tokens) if isinstance(token, int)]


@contextmanager
def plain_generation_config(model: PreTrainedModel) -> Generator[None, None, None]:
    """Without the sampling options that the model's folder may bring."""
    kept = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = kept


def until_end(row: Sequence[int], ends: Sequence[int]) -> tuple[int, ...]:
    """A row up to the first end token, with it."""
    stop = next((index + 1 for index, token in enumerate(row) if token in ends), len(row))
    return tuple(row[:stop])


def until_stop(row: tuple[int, ...], stop: Sequence[str], decode: Callable[[Sequence[int]], str]) -> tuple[int, ...]:
    """A row up to the token with which a text that ends it is whole; a batch goes on until all rows are done.

    Args:
        row: tokens.
        stop: texts that end it.
        decode: the text of tokens.
    """
    if not stop or stop_in(decode(row), stop) is None:
        return row
    lengths = range(1, len(row) + 1)
    return row[: next(length for length in lengths if stop_in(decode(row[:length]), stop) is not None)]
