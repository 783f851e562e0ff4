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
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from framework.core.devices import free_bytes
from framework.core.errors import DataError
from framework.gbc.attribution.options import GradientOptions, Score
from framework.gbc.execution.pass_memory import PassMemory, PassSize
from framework.gbc.graph.trace import Step
from framework.gbc.language_models.agent_parameters import BoundParameters
from framework.gbc.language_models.local import LocalModel
from framework.gbc.language_models.logits import consecutive_positions, cut_logits_at
from framework.gbc.language_models.lora import Adapter, active_adapters
from framework.gbc.language_models.prefix_cache import checkpointed_layers, frozen_prefix
from framework.gbc.language_models.transformers_compat import embeddings_of, keeps_keys_and_values
from framework.gbc.shapes import Alternatives, OutputValues


@dataclass(frozen=True, kw_only=True)
class TokenRow:
    """One answer of a model.

    Attributes:
        input_ids: what it read, at least one token.
        prefix: the number of first tokens that get no gradient: the cached prompt; less than all.
        output_ids: what it generated, at least one token.
        bound: the agent's parameters, if it has any. Gradients stay those of the input's tokens.
    """

    input_ids: tuple[int, ...]
    prefix: int
    output_ids: tuple[int, ...]
    bound: BoundParameters | None = None

    @classmethod
    def of(cls, model: LocalModel, step: Step, *, prefix: int) -> "TokenRow":
        """The answer of a step by a model, with the parameters that its agent has now.

        Args:
            model: that gave the answer.
            step: an agent's, with tokens.
            prefix: number of first tokens that get no gradient.
        """
        bound = model.bind(step.name, step.blocks, len(step.input_ids))
        return cls(input_ids=step.input_ids, prefix=prefix, output_ids=step.output_ids, bound=bound)

    def __post_init__(self) -> None:
        if not 0 <= self.prefix < len(self.input_ids) or not self.output_ids:
            raise DataError(
                f"{len(self.input_ids)} input tokens, a prefix of {self.prefix}, {len(self.output_ids)} output tokens",
                hint="give inputs with tokens after the prefix, and outputs that are not empty",
            )


@dataclass(frozen=True, kw_only=True)
class TokenScores:
    """Scores of the input tokens after the prefix, on the CPU, in float32 or, for models in float64, in float64.

    The scores are to be multiplied by exp(log_scale): the probability of a long answer is smaller than any float32.

    Attributes:
        l1: Σ |gradient| over the embedding's values, `row token`; a row for each output token where the scalar is
            `finegrained`, otherwise one.
        gradient_input: Σ gradient · embedding, `row token`.
        log_probs: log p of each output token, natural logarithm, `output`.
        log_scale: 0 but for `product_probs`.
    """

    l1: Float[Tensor, "row token"]
    gradient_input: Float[Tensor, "row token"]
    log_probs: Float[Tensor, "output"]
    log_scale: float

    def absolute(self, score: Score) -> Float[Tensor, "row token"]:
        """Scores with their scale, float64; they may underflow to 0."""
        return self.of(score).double() * math.exp(self.log_scale)

    def of(self, score: Score) -> Float[Tensor, "row token"]:
        """Scores without their scale."""
        return self.l1 if score == "l1" else self.gradient_input


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
        log_probs = forward_rows(model, [rows[index] for index in chunk]).log_probs.cpu()
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
        logits = forward_rows(model, [rows[index] for index in chunk]).logits
        tokens = logits.topk(min(count, logits.shape[2]), dim=2).indices.cpu()
        results.update({index: tokens[i, : len(rows[index].output_ids)] for i, index in enumerate(chunk)})
    return [results[index] for index in range(len(rows))]


def chunk_rows(
    model: PreTrainedModel, rows: Sequence[TokenRow], max_tokens: int, *, checkpointing: bool = False
) -> Iterator[list[int]]:
    """Numbers of the rows that go into one pass, by length; those without a prefix apart from the others.

    A pass has no more tokens than is allowed and no more memory than is free, by the counts of `pass_memory`; a single
    larger row is passed alone.

    Args:
        model: that they are passed through; with gradients, where these are on.
        rows: the answers.
        max_tokens: most tokens in one pass, prefixes and padding included.
        checkpointing: keep only the layers' inputs.
    """
    memory = PassMemory.of(model, free=free_bytes(model.device))
    with_gradients = torch.is_grad_enabled()
    chunk, size = list[int](), PassSize()
    # Rows without a prefix apart: an empty cache has no place for theirs.
    for index in sorted(
        range(len(rows)), key=lambda i: (rows[i].prefix > 0, _with_row(PassSize(), rows[i]).padded_tokens)
    ):
        larger = _with_row(size, rows[index])
        mixed = (larger.prefix > 0) != (size.prefix > 0)
        needed = memory.backward(larger, checkpointing=checkpointing) if with_gradients else memory.forward(larger)
        if chunk and (mixed or larger.padded_tokens > max_tokens or not memory.fits(needed)):
            yield chunk
            chunk, larger = [], _with_row(PassSize(), rows[index])
        chunk, size = [*chunk, index], larger
    if chunk:
        yield chunk


def _with_row(size: PassSize, row: TokenRow) -> PassSize:
    outputs = len(row.output_ids)
    return size.with_row(tokens=len(row.input_ids) - row.prefix + outputs, prefix=row.prefix, outputs=outputs)


@dataclass(frozen=True)
class Pass:
    """A batch after its forward pass, padded on the right.

    Attributes:
        embeddings: of the inputs after the prefix and of the outputs that are read: what gradients are taken to.
        hidden: what the layers give for each output token, in their graph.
        read: the same, as the head reads it, in the graph of the logits and not in that of the layers.
        logits: that each output token was chosen by, in float32 or wider.
        log_probs: of the output tokens; 0 in the padding.
        picked: their logits; 0 in the padding.
        lengths: tokens of each input after the prefix.
        outputs: tokens of each output.
    """

    embeddings: Float[Tensor, "batch token hidden"]
    hidden: Float[Tensor, "batch output hidden"]
    read: Float[Tensor, "batch output hidden"]
    logits: Float[Tensor, "batch output vocab"]
    log_probs: Float[Tensor, "batch output"]
    picked: Float[Tensor, "batch output"]
    lengths: list[int]
    outputs: list[int]

    def gradient(self, value: Float[Tensor, ""], *, keep: bool) -> Float[Tensor, "batch token hidden"]:
        """The gradient of a value of the logits with respect to the embeddings.

        Args:
            value: what is differentiated.
            keep: whether another one is taken after it.
        """
        (at_head,) = torch.autograd.grad(value, self.read, retain_graph=keep)
        (gradient,) = torch.autograd.grad(self.hidden, self.embeddings, at_head, retain_graph=keep)
        return gradient


def _batch_scores(model: PreTrainedModel, rows: Sequence[TokenRow], options: GradientOptions) -> Iterator[TokenScores]:
    by_token = options.scalar == "finegrained"
    at_once = _gradients_at_once(model, rows, options) if by_token else 1
    # The backward passes of the fused kernels cannot be batched.
    kernel = cast(AbstractContextManager[object], sdpa_kernel(SDPBackend.MATH)) if at_once > 1 else nullcontext()
    # With checkpointing the layers run again in the backward pass.
    with (
        kernel,
        checkpointed_layers(model) if options.checkpointing else nullcontext(),
        active_adapters(_adapters(rows)),
    ):
        result = forward_rows(model, rows)
        values = result.picked.square() if options.scalar == "sum_squares" else result.log_probs
        # Of the sum over all output tokens, which holds that of each: a logit is a function of its own place alone.
        (at_head,) = torch.autograd.grad(values.sum(), result.read)
        log_probs, lengths, outputs = result.log_probs.detach().cpu(), result.lengths, result.outputs
        hidden, embeddings = result.hidden, result.embeddings
        # The logits, the largest of all, are needed no more.
        del result, values
        if by_token:
            reduced = _gradient_rows(hidden, at_head, embeddings, at_once)
        else:
            (gradient,) = torch.autograd.grad(hidden, embeddings, at_head)
            reduced = _reduce(gradient[None], embeddings)
    l1, product = (scores.cpu() for scores in reduced)
    for index, (length, output) in enumerate(zip(lengths, outputs, strict=True)):
        kept = slice(0, output if by_token else 1)
        chances = log_probs[index, :output]
        yield TokenScores(
            l1=l1[kept, index, :length].clone(),
            gradient_input=product[kept, index, :length].clone(),
            log_probs=chances.clone(),
            log_scale=chances.double().sum().item() if options.scalar == "product_probs" else 0.0,
        )


def _gradients_at_once(model: PreTrainedModel, rows: Sequence[TokenRow], options: GradientOptions) -> int:
    if options.checkpointing:
        return 1
    size = reduce(_with_row, rows, PassSize())
    memory = PassMemory.of(model, free=free_bytes(model.device))
    return memory.gradients_together(
        size, asked=options.gradients_at_once, max_tokens=options.max_tokens, on_cpu=model.device.type == "cpu"
    )


def forward_rows(model: PreTrainedModel, rows: Sequence[TokenRow]) -> Pass:
    """One teacher-forced pass over a batch of answers, their prefixes without gradients."""
    device = model.device
    lengths = [len(row.input_ids) - row.prefix for row in rows]
    outputs = [len(row.output_ids) for row in rows]
    # The last generated token is read by nobody.
    runtime = [[*row.input_ids[row.prefix :], *row.output_ids[:-1]] for row in rows]
    width = max(map(len, runtime))
    ids = torch.tensor([tokens + [0] * (width - len(tokens)) for tokens in runtime], device=device)
    embeddings = embeddings_of(model, ids).detach().requires_grad_(torch.is_grad_enabled())
    # A state that cannot be cut is not cached: such a model reads the prefix again, without gradients.
    is_cached = keeps_keys_and_values(model)
    read, counts = _read(model, embeddings, rows, [len(tokens) for tokens in runtime], with_prefix=not is_cached)
    mask = (torch.arange(read.shape[1]) < torch.tensor(counts)[:, None]).to(device, torch.long)
    cache, start = None, torch.zeros(len(rows), 1, dtype=torch.long, device=device)
    if rows[0].prefix and is_cached:
        prefixes, bound = [row.input_ids[: row.prefix] for row in rows], [row.bound for row in rows]
        cache, before = frozen_prefix(model, prefixes, batch_size=len(rows), bound=bound)
        start, mask = before.sum(dim=1, keepdim=True), torch.cat([before, mask], dim=1)
    positions = torch.minimum(start + torch.arange(read.shape[1], device=device), mask.sum(dim=1, keepdim=True) - 1)
    # Of what is read after the prefix, the position of the last token before the output.
    lasts = [count - output for count, output in zip(counts, outputs, strict=True)]
    with active_adapters(_adapters(rows)):
        cut = cut_logits_at(
            model,
            consecutive_positions(lasts, outputs),
            inputs_embeds=read,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        )
    return Pass(embeddings, cut.hidden, cut.read, *_of_outputs(cut.logits, rows), lengths, outputs)


def _read(
    model: PreTrainedModel,
    embeddings: Float[Tensor, "batch token hidden"],
    rows: Sequence[TokenRow],
    counts: list[int],
    *,
    with_prefix: bool,
) -> tuple[Float[Tensor, "batch read hidden"], list[int]]:
    """What is read after the prefixes, padded on the right, and how much of it by each row.

    Args:
        model: whose embeddings those of the prefixes are.
        embeddings: of the tokens after the prefixes, padded.
        rows: the answers.
        counts: of these tokens.
        with_prefix: the prefixes are read too.
    """
    with_prefix = with_prefix and any(row.prefix for row in rows)
    if not with_prefix and not any(row.bound is not None and row.bound.changes_embeddings for row in rows):
        return embeddings, counts
    reads = [each[:count] for each, count in zip(embeddings.unbind(), counts, strict=True)]
    for index, row in enumerate(rows):
        if with_prefix:
            prefix = torch.tensor(row.input_ids[: row.prefix], dtype=torch.long, device=embeddings.device)
            reads[index] = torch.cat([embeddings_of(model, prefix).detach(), reads[index]])
        if row.bound is not None:
            reads[index] = row.bound.apply(reads[index], first=0 if with_prefix else row.prefix)
    return pad_sequence(reads, batch_first=True), list(map(len, reads))


def _adapters(rows: Sequence[TokenRow]) -> list[Adapter | None]:
    return [None if row.bound is None else row.bound.adapter for row in rows]


def _of_outputs(
    logits: Float[Tensor, "batch output vocab"], rows: Sequence[TokenRow]
) -> tuple[Float[Tensor, "batch output vocab"], Float[Tensor, "batch output"], Float[Tensor, "batch output"]]:
    """The generated tokens' logits over the vocabulary, log-probabilities and own logits; 0 in the padding."""
    targets = torch.zeros(logits.shape[:2], dtype=torch.long)
    valid = torch.zeros(logits.shape[:2], dtype=torch.bool)
    for index, row in enumerate(rows):
        targets[index, : len(row.output_ids)] = torch.tensor(row.output_ids)
        valid[index, : len(row.output_ids)] = True
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    picked = logits.gather(2, targets[..., None].to(logits.device))[..., 0]
    log_probs = picked - logits.logsumexp(dim=2)
    valid = valid.to(logits.device)
    return logits, log_probs.where(valid, 0.0), picked.where(valid, 0.0)


def _gradient_rows(
    hidden: Float[Tensor, "batch output hidden"],
    at_head: Float[Tensor, "batch output hidden"],
    embeddings: Float[Tensor, "batch token hidden"],
    at_once: int,
) -> tuple[Float[Tensor, "output batch token"], Float[Tensor, "output batch token"]]:
    """Reduced gradients of every output token; rows of a batch do not touch each other.

    Args:
        hidden: what the head reads of each output token.
        at_head: the gradient of each output token's value with respect to it.
        embeddings: what the values are differentiated by.
        at_once: output tokens whose gradients are taken by one batched backward pass.
    """
    count = hidden.shape[1]
    parts: list[tuple[Float[Tensor, "row batch token"], Float[Tensor, "row batch token"]]] = []
    for start in range(0, count, at_once):
        stop = min(start + at_once, count)
        keep = stop < count
        picks = at_head.new_zeros(stop - start, *at_head.shape)
        picks[torch.arange(stop - start), :, torch.arange(start, stop)] = at_head[:, start:stop].transpose(0, 1)
        if at_once == 1:
            (gradient,) = torch.autograd.grad(hidden, embeddings, picks[0], retain_graph=keep)
            gradient = gradient[None]
        else:
            (gradient,) = torch.autograd.grad(hidden, embeddings, picks, retain_graph=keep, is_grads_batched=True)
        parts.append(_reduce(gradient, embeddings))
    l1, product = (torch.cat(scores) for scores in zip(*parts, strict=True))
    return l1, product


def _reduce(
    gradient: Float[Tensor, "row batch token hidden"], embeddings: Float[Tensor, "batch token hidden"]
) -> tuple[Float[Tensor, "row batch token"], Float[Tensor, "row batch token"]]:
    """L1, and gradient times input."""
    wide = torch.promote_types(gradient.dtype, torch.float32)
    gradient, values = gradient.to(wide), embeddings.detach().to(wide)
    return gradient.abs().sum(dim=-1), (gradient * values).sum(dim=-1)
