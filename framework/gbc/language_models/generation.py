"""Batched generation: left padding, seeded sampling and end tokens."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
)

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
    ids = torch.tensor([[padding] * (width - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


class GumbelNoise(LogitsProcessor):
    """Adds Gumbel noise to the logits: their largest is then a sample (Gumbel 1954).

    Args:
        seeds: one for each row of the batch; a row's samples are a function of its seed alone.
        temperature: of the softmax that is sampled from, above 0.
    """

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        self.generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        self.temperature = temperature

    def __call__(self, input_ids: TokenIds, scores: Float[Tensor, "batch vocab"]) -> Float[Tensor, "batch vocab"]:
        """Noisy logits of the next token."""
        rows = [torch.rand(scores.shape[1], generator=each, device=each.device) for each in self.generators]
        uniform = torch.stack(rows)
        noise = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
        return scores.float() + self.temperature * noise.to(scores.device)


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
            bool(texts) and stop_in(self.decode(ints(row[self.num_read :])), texts) is not None
            for row, texts in zip(input_ids, self.texts, strict=True)
        ]
        return torch.tensor(done, device=input_ids.device)


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
