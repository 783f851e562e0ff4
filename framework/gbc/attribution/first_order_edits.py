"""What other input tokens would change in an answer, to first order (ours).

The gradient of an output token's margin with respect to an input token's embedding tells how far the margin falls when
another token stands there: gradient · (embedding - other embedding). The first-order exchange of tokens is HotFlip's
(Ebrahimi et al. 2018, arXiv 1712.06751), there to attack a classifier, here to find what would have corrected an
answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from framework.core.errors import DataError
from framework.gbc.attribution.token_gradients import TokenRow, chunk_rows, forward_rows
from framework.gbc.language_models.transformers_compat import embeddings_of
from framework.gbc.shapes import EditValues, Embeddings, OutputLogits, ints, unique_inverse

RUNNER_UP = -1
"""In place of a token: the likeliest one but for that which was said."""
_LEAST_MARGIN = 0.5
"""In nats: a token that was as good as undecided is not held against an edit."""


@dataclass(frozen=True, kw_only=True)
class EditCandidates:
    """An answer, what of it should be other, and what could be edited in what was read.

    Attributes:
        row: the answer, corrected: with what should stand at the targets. What is wrong by itself can be told there
            from what is wrong because of a word before it. The positions of edits are after its prefix.
        targets: output tokens, by their number, what was said there, and what should have been, or `RUNNER_UP`.
        kept: output tokens that should stay.
        edits: input tokens, by their number, and what could stand there; at least one.
    """

    row: TokenRow
    targets: tuple[tuple[int, int, int], ...]
    kept: tuple[int, ...]
    edits: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        outputs, inputs = len(self.row.output_ids), len(self.row.input_ids)
        if not self.edits or not self.targets:
            raise DataError("an answer without edits or targets", hint="leave it out")
        if any(not 0 <= number < outputs for number in (*self.kept, *(number for number, _, _ in self.targets))):
            raise DataError(f"a target beyond the {outputs} output tokens", hint="count them from 0")
        if any(not self.row.prefix <= position < inputs for position, _ in self.edits):
            raise DataError(f"an edit outside tokens {self.row.prefix} to {inputs}", hint="edit after the prefix")


@dataclass(frozen=True, kw_only=True)
class FirstOrderEdits:
    """Effects on margins, the logit of what was said minus that of what should stand there; on the CPU.

    Attributes:
        margins: of the targets.
        drops: how far each falls by each edit.
        harms: how many kept tokens each edit breaks: the sum of the shares of their margins over their runners-up that
            it takes; what it adds to one counts against what it takes of another.
    """

    margins: Float[Tensor, "target"]
    drops: Float[Tensor, "target edit"]
    harms: Float[Tensor, "edit"]


def first_order_edits(
    model: PreTrainedModel, rows: Sequence[EditCandidates], *, max_tokens: int = 16384
) -> list[FirstOrderEdits]:
    """The effects of all edits of answers, in their order.

    One forward pass, and a backward pass for each target and one for all tokens that are kept.

    Args:
        model: in evaluation mode, with frozen parameters.
        rows: the answers; those of a batch share their backward passes.
        max_tokens: most tokens in one pass, padding included; a single longer row is passed alone.
    """
    found: dict[int, FirstOrderEdits] = {}
    for chunk in chunk_rows(model, [row.row for row in rows], max_tokens):
        batch = [rows[index] for index in chunk]
        found.update(zip(chunk, _batch_effects(model, batch), strict=True))
    return [found[index] for index in range(len(rows))]


def _batch_effects(model: PreTrainedModel, rows: Sequence[EditCandidates]) -> list[FirstOrderEdits]:
    result = forward_rows(model, [row.row for row in rows])
    tables = [_EditTable(model, result.embeddings[index], row) for index, row in enumerate(rows)]
    values = [_differentiated(logits, row) for logits, row in zip(result.logits, rows, strict=False)]
    count = max(map(len, values))
    drops: list[list[EditValues]] = [[] for _ in rows]
    for number in range(count):
        active = [index for index, each in enumerate(values) if number < len(each)]
        some = [values[index][number] for index in active]
        # Rows of a batch do not touch each other: the gradient of the sum holds that of each.
        gradient = result.gradient(torch.stack(some).sum(), keep=number < count - 1)
        for index in active:
            drops[index].append(tables[index].drops(gradient[index]))
    return [
        FirstOrderEdits(
            margins=torch.stack(values[index][: len(row.targets)]).detach().cpu(),
            drops=torch.stack(drops[index][: len(row.targets)]),
            harms=drops[index][-1] if row.kept else torch.zeros(len(row.edits)),
        )
        for index, row in enumerate(rows)
    ]


def _differentiated(logits: OutputLogits, row: EditCandidates) -> list[Float[Tensor, ""]]:
    """The margin of each target; those of kept tokens, each in its own unit, together."""
    margins = [_margin(logits, *target) for target in row.targets]
    if not row.kept:
        return margins
    kept = torch.stack([_margin(logits, number, row.row.output_ids[number], RUNNER_UP) for number in row.kept])
    return [*margins, (kept / kept.detach().clamp(min=_LEAST_MARGIN)).sum()]


def _margin(logits: OutputLogits, number: int, said: int, other: int) -> Float[Tensor, ""]:
    if other == RUNNER_UP:
        best = ints(logits[number].detach().topk(2).indices)
        other = best[1] if best[0] == said else best[0]
    return logits[number, said] - logits[number, other]


class _EditTable:
    """The embeddings of an answer's edits: a table of positions by tokens, few of each."""

    @torch.no_grad()
    def __init__(self, model: PreTrainedModel, embeddings: Embeddings, row: EditCandidates) -> None:
        positions = torch.tensor([position - row.row.prefix for position, _ in row.edits], device=embeddings.device)
        tokens = torch.tensor([token for _, token in row.edits], device=embeddings.device)
        self.positions, self.row = unique_inverse(positions)
        unique, self.column = unique_inverse(tokens)
        self.said = embeddings.detach()[self.positions].float()
        self.others = embeddings_of(model, unique).float()

    @torch.no_grad()
    def drops(self, gradient: Embeddings) -> Float[Tensor, "edit"]:
        """How far a value falls by each edit, from its gradient."""
        slopes = gradient[self.positions].float()
        now = (slopes * self.said).sum(dim=-1, keepdim=True)
        return (now - slopes @ self.others.T)[self.row, self.column].cpu()
