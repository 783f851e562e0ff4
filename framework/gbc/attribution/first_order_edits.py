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
from framework.gbc.execution.teacher_forcing import Pass, TokenRow, chunk_rows, forward_rows
from framework.gbc.language_models.logits import LogitChunk
from framework.gbc.language_models.lora import active_adapters
from framework.gbc.language_models.transformers_compat import embeddings_of
from framework.gbc.shapes import EditValues, Embeddings, TokenLogits, ints, unique_inverse

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
    margins, at_head = _margins(result, rows)
    count = max(len(row.targets) + bool(row.kept) for row in rows)
    drops: list[list[EditValues]] = [[] for _ in rows]
    with active_adapters(result.adapters):
        for number in range(count):
            active = [index for index, row in enumerate(rows) if number < len(row.targets) + bool(row.kept)]
            # Rows of a batch do not touch each other: one backward pass gives the gradient of each.
            start = torch.zeros_like(result.hidden)
            for index in active:
                asked = _asked(rows[index])
                chosen = range(len(rows[index].targets), len(asked)) if number == len(rows[index].targets) else [number]
                for each in chosen:
                    start[index, asked[each][0]] = at_head[index][each]
            (gradient,) = torch.autograd.grad(result.hidden, result.embeddings, start, retain_graph=number < count - 1)
            for index in active:
                drops[index].append(tables[index].drops(gradient[index]))
    return [
        FirstOrderEdits(
            margins=margins[index][: len(row.targets)].cpu(),
            drops=torch.stack(drops[index][: len(row.targets)]),
            harms=drops[index][-1] if row.kept else torch.zeros(len(row.edits)),
        )
        for index, row in enumerate(rows)
    ]


def _asked(row: EditCandidates) -> list[tuple[int, int, int]]:
    """The targets, then the kept tokens against their runners-up: output token, what it is, and what against."""
    return [*row.targets, *((number, row.row.output_ids[number], RUNNER_UP) for number in row.kept)]


def _margins(
    result: Pass, rows: Sequence[EditCandidates]
) -> tuple[list[Float[Tensor, "_"]], list[Float[Tensor, "_ hidden"]]]:
    """Margins of each row's targets and kept tokens, and their gradients at the head; kept ones in their own unit."""
    asked = [_asked(row) for row in rows]
    margins = [result.hidden.new_zeros(len(each), dtype=torch.float32) for each in asked]
    at_head = [result.hidden.new_zeros(len(each), result.hidden.shape[2]) for each in asked]

    def differentiate(chunk: LogitChunk) -> tuple[()]:
        here = range(chunk.positions.start, chunk.positions.stop)
        # Of an output token that should be one of several, each has a gradient of its own.
        rounds: list[dict[tuple[int, int], int]] = []
        for index, each in enumerate(asked):
            for number, (place, _, _) in enumerate(each):
                if place in here:
                    free = next((taken for taken in rounds if (index, place) not in taken), None)
                    if free is None:
                        rounds.append(free := {})
                    free[index, place] = number
        for last, taken in enumerate(rounds, start=1 - len(rounds)):
            values: list[Float[Tensor, ""]] = []
            for (index, place), number in taken.items():
                _, said, other = asked[index][number]
                margin = _margin(chunk.logits[index, place - here.start], said, other)
                margins[index][number] = margin.detach()
                is_kept = number >= len(rows[index].targets)
                values.append(margin / margin.detach().clamp(min=_LEAST_MARGIN) if is_kept else margin)
            (gradient,) = torch.autograd.grad(torch.stack(values).sum(), chunk.read, retain_graph=last < 0)
            for (index, place), number in taken.items():
                at_head[index][number] = gradient[index, place - here.start]
        return ()

    result.map_logits(differentiate)
    return margins, at_head


def _margin(logits: TokenLogits, said: int, other: int) -> Float[Tensor, ""]:
    if other == RUNNER_UP:
        best = ints(logits.detach().topk(2).indices)
        other = best[1] if best[0] == said else best[0]
    return logits[said] - logits[other]


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
