"""Teacher-forced passes over answers: [cached prefix | input embeddings | generated tokens], in batches.

What is read before the prefix's end has no gradients and is read once (`prefix_cache`); logits are computed for the
output tokens alone, a few of them at a time (`logits`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from framework.core.devices import free_bytes, tensor_on, to_device
from framework.core.errors import DataError
from framework.gbc.execution.pass_memory import PassMemory, PassSize
from framework.gbc.graph.trace import Step
from framework.gbc.language_models.agent_parameters import BoundParameters
from framework.gbc.language_models.local import LocalModel
from framework.gbc.language_models.logits import LogitChunk, consecutive_positions, hidden_at, map_logits
from framework.gbc.language_models.lora import Adapter, active_adapters
from framework.gbc.language_models.prefix_cache import frozen_prefix
from framework.gbc.language_models.transformers_compat import embeddings_of, keeps_keys_and_values, passing_cache

_FULL = 4096
"""Tokens of a pass that keep a GPU busy: one of as many takes no more rows for which it needs a mask."""


@dataclass(frozen=True, kw_only=True)
class TokenRow:
    """One answer of a model.

    Attributes:
        input_ids: what it read, at least one token.
        prefix: the number of first tokens that get no gradient: the cached prompt; less than all.
        output_ids: what it generated, at least one token.
        bound: the agent's parameters, if it has any. Gradients stay those of the input's tokens.
        key: what the answer is of, such as task and step: random numbers of its own are a function of it.
        blamed: output tokens, by their number, at which the loss begins; none where it begins everywhere or elsewhere.
    """

    input_ids: tuple[int, ...]
    prefix: int
    output_ids: tuple[int, ...]
    bound: BoundParameters | None = None
    key: str = ""
    blamed: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, model: LocalModel, step: Step, *, prefix: int, id: str = "", blamed: tuple[int, ...] = ()
    ) -> "TokenRow":
        """The answer of a step by a model, with the parameters that its agent has now.

        Args:
            model: that gave the answer.
            step: an agent's, with tokens.
            prefix: number of first tokens that get no gradient.
            id: of the trace.
            blamed: output tokens at which the loss begins.
        """
        bound = model.bind(step.name, step.blocks, len(step.input_ids))
        key = f"{id}/{step.name}"
        return cls(
            input_ids=step.input_ids, prefix=prefix, output_ids=step.output_ids, bound=bound, key=key, blamed=blamed
        )

    def __post_init__(self) -> None:
        if not 0 <= self.prefix < len(self.input_ids) or not self.output_ids:
            raise DataError(
                f"{len(self.input_ids)} input tokens, a prefix of {self.prefix}, {len(self.output_ids)} output tokens",
                hint="give inputs with tokens after the prefix, and outputs that are not empty",
            )


def first_message(step: Step) -> int:
    """Where the first message begins that a step read; what is before it, its agent reads in every task."""
    return min((block.tokens[0] for block in step.messages if block.tokens[0] < block.tokens[1]), default=0)


def chunk_rows(
    model: PreTrainedModel, rows: Sequence[TokenRow], max_tokens: int, *, checkpointing: bool = False
) -> Iterator[list[int]]:
    """Numbers of the rows that go into one pass, by the lengths of their prefixes and then of what is read.

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
    for index in sorted(range(len(rows)), key=lambda i: (rows[i].prefix, with_row(PassSize(), rows[i]).padded_tokens)):
        larger = with_row(size, rows[index])
        # Rows without a prefix apart: an empty cache has no place for theirs. Unlike prefixes need a mask, which costs
        # less than small passes.
        mixed = larger.prefix != size.prefix and (not size.prefix or size.padded_tokens >= _FULL)
        needed = memory.backward(larger, checkpointing=checkpointing) if with_gradients else memory.forward(larger)
        if chunk and (mixed or larger.padded_tokens > max_tokens or not memory.fits(needed)):
            yield chunk
            chunk, larger = [], with_row(PassSize(), rows[index])
        chunk, size = [*chunk, index], larger
    if chunk:
        yield chunk


def with_row(size: PassSize, row: TokenRow) -> PassSize:
    """A pass with one more row."""
    outputs = len(row.output_ids)
    return size.with_row(tokens=len(row.input_ids) - row.prefix + outputs, prefix=row.prefix, outputs=outputs)


@dataclass(frozen=True, kw_only=True)
class Pass:
    """A batch after its forward pass, padded on the right.

    Attributes:
        model: that was passed.
        embeddings: of the inputs after the prefix and of the outputs that are read: what gradients are taken to.
        hidden: what the layers give for each output token, in their graph: gradients of the logits are carried on from
            there to the embeddings.
        targets: the output tokens.
        valid: which are not padding.
        lengths: tokens of each input after the prefix.
        outputs: tokens of each output.
        adapters: of the rows.
    """

    model: PreTrainedModel
    embeddings: Float[Tensor, "batch token hidden"]
    hidden: Float[Tensor, "batch output hidden"]
    targets: Int[Tensor, "batch output"]
    valid: Bool[Tensor, "batch output"]
    lengths: list[int]
    outputs: list[int]
    adapters: list[Adapter | None]

    def map_logits(
        self, function: Callable[[LogitChunk], tuple[Shaped[Tensor, "batch output ..."], ...]]
    ) -> tuple[Shaped[Tensor, "batch output ..."], ...]:
        """What a function gives for the logits that each output token was chosen by, a few tokens at a time."""
        return map_logits(self.model, self.hidden, function, adapters=self.adapters)

    def picked(self, chunk: LogitChunk) -> tuple[Float[Tensor, "batch output"], Float[Tensor, "batch output"]]:
        """Log-probabilities of output tokens, and their logits; both 0 in the padding."""
        targets, valid = self.targets[:, chunk.positions], self.valid[:, chunk.positions]
        logits = chunk.logits.gather(2, targets[..., None])[..., 0]
        log_probs = logits - chunk.logits.logsumexp(dim=2)
        return log_probs.where(valid, 0.0), logits.where(valid, 0.0)


def forward_rows(model: PreTrainedModel, rows: Sequence[TokenRow]) -> Pass:
    """One teacher-forced pass over a batch of answers, their prefixes without gradients."""
    device = model.device
    lengths = [len(row.input_ids) - row.prefix for row in rows]
    outputs = [len(row.output_ids) for row in rows]
    # The last generated token is read by nobody.
    runtime = [[*row.input_ids[row.prefix :], *row.output_ids[:-1]] for row in rows]
    width = max(map(len, runtime))
    ids = tensor_on(device, [tokens + [0] * (width - len(tokens)) for tokens in runtime])
    embeddings = embeddings_of(model, ids).detach().requires_grad_(torch.is_grad_enabled())
    # A state that cannot be cut is not cached: such a model reads the prefix again, without gradients.
    is_cached = keeps_keys_and_values(model)
    read, counts = _read(model, embeddings, rows, [len(tokens) for tokens in runtime], with_prefix=not is_cached)
    cache, mask, positions = passing_cache(model), None, None
    if rows[0].prefix and is_cached:
        prefixes, bound = [row.input_ids[: row.prefix] for row in rows], [row.bound for row in rows]
        cache, before = frozen_prefix(model, prefixes, bound=bound)
        mask, positions = _after(before, counts, device)
    # Of what is read after the prefix, the position of the last token before the output.
    lasts = [count - output for count, output in zip(counts, outputs, strict=True)]
    adapters = [None if row.bound is None else row.bound.adapter for row in rows]
    with active_adapters(adapters):
        hidden = hidden_at(
            model,
            consecutive_positions(lasts, outputs),
            inputs_embeds=read,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=False,
        )
    targets = pad_sequence([torch.tensor(row.output_ids) for row in rows], batch_first=True)
    valid = torch.arange(targets.shape[1]) < torch.tensor(outputs)[:, None]
    return Pass(
        model=model,
        embeddings=embeddings,
        hidden=hidden,
        targets=to_device(targets, device),
        valid=to_device(valid, device),
        lengths=lengths,
        outputs=outputs,
        adapters=adapters,
    )


def _after(
    prefixes: list[int], counts: list[int], device: torch.device
) -> tuple[Int[Tensor, "batch read"] | None, Int[Tensor, "batch token"]]:
    """The mask and the positions of what is read after prefixes; without a mask, where these are equally long.

    What fills up stands behind, and no token reads it.

    Args:
        prefixes: tokens of each row's.
        counts: tokens that each row reads after it.
        device: of the result.
    """
    places = torch.arange(max(counts))
    before, own = torch.tensor(prefixes)[:, None], torch.tensor(counts)[:, None]
    positions = to_device(before + torch.minimum(places, own - 1), device)
    if min(prefixes) == max(prefixes):
        return None, positions
    padded = torch.arange(max(prefixes)) >= max(prefixes) - before
    return to_device(torch.cat([padded, places < own], dim=1).long(), device), positions


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
            prefix = tensor_on(embeddings.device, row.input_ids[: row.prefix])
            reads[index] = torch.cat([embeddings_of(model, prefix).detach(), reads[index]])
        if row.bound is not None:
            reads[index] = row.bound.apply(reads[index], first=0 if with_prefix else row.prefix)
    return pad_sequence(reads, batch_first=True), list(map(len, reads))
