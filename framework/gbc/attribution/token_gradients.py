"""Connection weights by one teacher-forced pass over [cached prefix | input embeddings | generated tokens].

Published (Yang et al. 2026, arXiv 2606.28187): the weight of an input token is the gradient of a scalar of the
generated tokens with respect to its embedding. There the graph is kept through generation; ours generates first,
without gradients, and takes the gradient by one forward and one backward pass. The generated tokens are constants in
both, so the gradients are the same.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import reduce
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from framework.core.devices import free_bytes
from framework.core.seeding import seed_of
from framework.gbc.attribution.options import GradientOptions, Score
from framework.gbc.execution.pass_memory import PassMemory, PassSize
from framework.gbc.execution.teacher_forcing import TokenRow, chunk_rows, forward_rows, with_row
from framework.gbc.language_models.logits import LogitChunk
from framework.gbc.language_models.lora import active_adapters
from framework.gbc.language_models.prefix_cache import checkpointed_layers
from framework.gbc.shapes import Alternatives, OutputValues


@dataclass(frozen=True, kw_only=True)
class TokenScores:
    """Scores of the input tokens after the prefix, on the CPU, in float32 or, for models in float64, in float64.

    The scores are to be multiplied by exp(log_scale), squares by its square: the probability of a long answer is
    smaller than any float32.

    Attributes:
        l1: Σ |gradient| over the embedding's values, `row token`; a row for each output token where the scalar is
            `finegrained` or `sketched`, otherwise one. Output tokens that a sketch takes together have equal rows.
        squared_l2: Σ gradient², `row token`.
        gradient_input: Σ gradient · embedding, `row token`.
        log_probs: log p of each output token, natural logarithm, `output`.
        log_scale: 0 but for `product_probs`.
    """

    l1: Float[Tensor, "row token"]
    squared_l2: Float[Tensor, "row token"]
    gradient_input: Float[Tensor, "row token"]
    log_probs: Float[Tensor, "output"]
    log_scale: float

    def absolute(self, score: Score) -> Float[Tensor, "row token"]:
        """Scores with their scale, float64; they may underflow to 0."""
        return self.of(score).double() * self.scale(score)

    def scale(self, score: Score) -> float:
        """What the scores are to be multiplied by."""
        return math.exp((2 if score == "squared_l2" else 1) * self.log_scale)

    def of(self, score: Score) -> Float[Tensor, "row token"]:
        """Scores without their scale."""
        return {"l1": self.l1, "squared_l2": self.squared_l2, "gradient_input": self.gradient_input}[score]


def token_scores(model: PreTrainedModel, rows: Sequence[TokenRow], options: GradientOptions) -> list[TokenScores]:
    """The scores of answers, in their order.

    Rows are batched by length; the padding has no influence.

    Args:
        model: in evaluation mode, with frozen parameters; its embeddings are the inputs that gradients are taken to.
        rows: the answers.
        options: scalar and memory.
    """
    results: dict[int, TokenScores] = {}
    for chunk in chunk_rows(model, rows, options.max_tokens, checkpointing=options.checkpointing):
        for index, scores in zip(chunk, _batch_scores(model, [rows[i] for i in chunk], options), strict=True):
            results[index] = scores
    return [results[index] for index in range(len(rows))]


@torch.no_grad()
def output_log_probs(
    model: PreTrainedModel, rows: Sequence[TokenRow], *, max_tokens: int = 16384
) -> list[OutputValues]:
    """Log p of the output tokens of each row, in nats, on the CPU; without gradients.

    Args:
        model: in evaluation mode.
        rows: the answers.
        max_tokens: most tokens in one pass, padding included.
    """
    results: dict[int, OutputValues] = {}
    for chunk in chunk_rows(model, rows, max_tokens):
        result = forward_rows(model, [rows[index] for index in chunk])
        log_probs = result.map_logits(lambda part, result=result: result.picked(part)[:1])[0].cpu()
        results.update({index: log_probs[i, : len(rows[index].output_ids)] for i, index in enumerate(chunk)})
    return [results[index] for index in range(len(rows))]


@torch.no_grad()
def likeliest_tokens(
    model: PreTrainedModel, rows: Sequence[TokenRow], *, count: int, max_tokens: int = 16384
) -> list[Alternatives]:
    """For each output token of each row the likeliest tokens in its place, `output alternative`, on the CPU.

    Args:
        model: in evaluation mode; no gradients are taken.
        rows: the answers.
        count: alternatives of each token.
        max_tokens: most tokens in one pass, padding included.
    """
    results: dict[int, Alternatives] = {}
    for chunk in chunk_rows(model, rows, max_tokens):
        result = forward_rows(model, [rows[index] for index in chunk])
        (found,) = result.map_logits(lambda part: (part.logits.topk(min(count, part.logits.shape[2]), dim=2).indices,))
        tokens = found.cpu()
        results.update({index: tokens[i, : len(rows[index].output_ids)] for i, index in enumerate(chunk)})
    return [results[index] for index in range(len(rows))]


def combinations(row: TokenRow, options: GradientOptions) -> Float[Tensor, "row output"]:
    """How the values of an answer's output tokens are put together to what is differentiated.

    `finegrained` takes each by itself, and a sum takes all. `sketched` takes neighbours together, in as many groups as
    there are passes: Σ ± v / √n over the n tokens of a group, with random signs. The mean over the signs of the square
    of its gradient is the mean of the squares of the tokens' own gradients, exactly (Hutchinson 1990; groups are ours:
    what is wrong lies in a few neighbouring words). A token in a group of its own has its own gradient. Tokens at which
    the loss begins are apart from the others, which get the passes that these leave, at least one.

    Args:
        row: the answer; its key and the seed give the signs.
        options: scalar, passes and seed.
    """
    count = len(row.output_ids)
    if options.scalar == "finegrained":
        return torch.eye(count)
    if options.scalar != "sketched":
        return torch.ones(1, count)
    generator = torch.Generator("cpu").manual_seed(seed_of("sketch", options.sketch_seed, row.key))
    signs = torch.randint(0, 2, (count,), generator=generator, device="cpu").double() * 2 - 1
    groups = _groups(row, options.sketch_passes)
    rows = torch.zeros(len(groups), count, dtype=torch.float64)
    for number, group in enumerate(groups):
        rows[number, group] = signs[group] / len(group) ** 0.5
    return rows


def _groups(row: TokenRow, passes: int) -> list[Int[Tensor, "_"]]:
    """Output tokens that are taken together, at most as many groups as passes."""
    count = len(row.output_ids)
    is_blamed = torch.zeros(count, dtype=torch.bool)
    is_blamed[list(row.blamed)] = True
    blamed, others = (torch.arange(count)[chosen] for chosen in (is_blamed, ~is_blamed))
    of_blamed = min(len(blamed), passes if not len(others) else max(1, passes - 1))
    left = min(len(others), passes - of_blamed)
    return [
        *(blamed.tensor_split(of_blamed) if of_blamed else ()),
        *(others.tensor_split(left) if left else ()),
    ]


def per_output(rows: Float[Tensor, "combination token"], weights: Float[Tensor, "combination output"]) -> Tensor:
    """For each output token the row of the combination that it is in, or the first; one row stays one."""
    return rows if len(rows) == 1 else rows[(weights != 0).float().argmax(dim=0)]


def _batch_scores(model: PreTrainedModel, rows: Sequence[TokenRow], options: GradientOptions) -> Iterator[TokenScores]:
    weights = [combinations(row, options) for row in rows]
    count = max(map(len, weights))
    at_once = min(count, _gradients_at_once(model, rows, options)) if count > 1 else 1
    # The backward passes of the fused kernels cannot be batched.
    kernel = cast(AbstractContextManager[object], sdpa_kernel(SDPBackend.MATH)) if at_once > 1 else nullcontext()
    # With checkpointing the layers run again in the backward pass.
    with kernel, checkpointed_layers(model) if options.checkpointing else nullcontext():
        result = forward_rows(model, rows)

        def differentiate(chunk: LogitChunk) -> tuple[Float[Tensor, "batch output _"], Float[Tensor, "batch output"]]:
            log_probs, logits = result.picked(chunk)
            values = logits.square() if options.scalar == "sum_squares" else log_probs
            # Of the sum over all output tokens, which holds that of each: a logit is a function of its own place alone.
            (at_head,) = torch.autograd.grad(values.sum(), chunk.read)
            return at_head, log_probs.detach()

        at_head, log_probs = result.map_logits(differentiate)
        with active_adapters(result.adapters):
            padded = at_head.new_zeros(len(rows), count, at_head.shape[1])
            for index, each in enumerate(weights):
                padded[index, : len(each), : each.shape[1]] = each.to(padded)
            reduced = _gradient_rows(result.hidden, at_head, result.embeddings, padded, at_once)
    l1, squares, product = (scores.cpu() for scores in reduced)
    log_probs = log_probs.cpu()
    for index, (length, output) in enumerate(zip(result.lengths, result.outputs, strict=True)):
        kept = slice(0, len(weights[index]))
        chances = log_probs[index, :output]
        yield TokenScores(
            l1=per_output(l1[kept, index, :length], weights[index]).clone(),
            squared_l2=per_output(squares[kept, index, :length], weights[index]).clone(),
            gradient_input=per_output(product[kept, index, :length], weights[index]).clone(),
            log_probs=chances.clone(),
            log_scale=chances.double().sum().item() if options.scalar == "product_probs" else 0.0,
        )


def _gradients_at_once(model: PreTrainedModel, rows: Sequence[TokenRow], options: GradientOptions) -> int:
    if options.checkpointing:
        return 1
    size = reduce(with_row, rows, PassSize())
    memory = PassMemory.of(model, free=free_bytes(model.device))
    return memory.gradients_together(
        size, asked=options.gradients_at_once, max_tokens=options.max_tokens, on_cpu=model.device.type == "cpu"
    )


_Rows = tuple[Float[Tensor, "row batch token"], Float[Tensor, "row batch token"], Float[Tensor, "row batch token"]]


def _gradient_rows(
    hidden: Float[Tensor, "batch output hidden"],
    at_head: Float[Tensor, "batch output hidden"],
    embeddings: Float[Tensor, "batch token hidden"],
    weights: Float[Tensor, "batch row output"],
    at_once: int,
) -> _Rows:
    """Reduced gradients of combinations of output tokens; rows of a batch do not touch each other.

    Args:
        hidden: what the head reads of each output token.
        at_head: the gradient of each output token's value with respect to it.
        embeddings: what the values are differentiated by.
        weights: of the values in each combination.
        at_once: combinations whose gradients are taken by one batched backward pass.
    """
    count = weights.shape[1]
    parts: list[_Rows] = []
    for start in range(0, count, at_once):
        stop = min(start + at_once, count)
        keep = stop < count
        picks = weights[:, start:stop].transpose(0, 1)[..., None] * at_head
        if at_once == 1:
            (gradient,) = torch.autograd.grad(hidden, embeddings, picks[0], retain_graph=keep)
            gradient = gradient[None]
        else:
            (gradient,) = torch.autograd.grad(hidden, embeddings, picks, retain_graph=keep, is_grads_batched=True)
        parts.append(_reduce(gradient, embeddings))
    l1, squares, product = (torch.cat(scores) for scores in zip(*parts, strict=True))
    return l1, squares, product


def _reduce(
    gradient: Float[Tensor, "row batch token hidden"], embeddings: Float[Tensor, "batch token hidden"]
) -> _Rows:
    """L1, squared L2, and gradient times input."""
    wide = torch.promote_types(gradient.dtype, torch.float32)
    gradient, values = gradient.to(wide), embeddings.detach().to(wide)
    return gradient.abs().sum(dim=-1), gradient.square().sum(dim=-1), (gradient * values).sum(dim=-1)
