"""What other input tokens would change in an answer, to first order (ours).

The gradient of an output token's margin with respect to an input token's embedding tells how far the margin falls when
another token stands there: gradient · (embedding - other embedding). The first-order exchange of tokens is HotFlip's
(Ebrahimi et al. 2018, arXiv 1712.06751), there to attack a classifier, here to find what would have corrected an answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from framework.core.errors import DataError
from framework.gbc.attribution.token_gradients import TokenRow, chunk_rows, forward_rows

RUNNER_UP = -1
"""In place of a token: the likeliest one but for that which was said."""
_LEAST_MARGIN = 0.5
"""Natural logarithm: a token that was as good as undecided is not held against an edit."""


@dataclass(frozen=True, kw_only=True)
class EditRow:
    """An answer, what of it should be other, and what could be edited in what was read.

    Attributes:
        row: the answer, corrected: with what should stand in the wished places. What is wrong by itself can be told there
            from what is wrong because of a word before it. The places of edits are after its prefix.
        wished: output tokens, by their number, what was said there, and what should have been, or `RUNNER_UP`.
        kept: output tokens that should stay.
        edits: input tokens, by their number, and what could stand there; at least one.
    """

    row: TokenRow
    wished: tuple[tuple[int, int, int], ...]
    kept: tuple[int, ...]
    edits: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        outputs, inputs = len(self.row.output_ids), len(self.row.input_ids)
        if not self.edits or not self.wished:
            raise DataError("an answer without edits or wishes", hint="leave it out")
        if any(not 0 <= place < outputs for place in (*self.kept, *(place for place, _, _ in self.wished))):
            raise DataError(f"a place beyond the {outputs} output tokens", hint="count them from 0")
        if any(not self.row.prefix <= place < inputs for place, _ in self.edits):
            raise DataError(f"an edit outside tokens {self.row.prefix} to {inputs}", hint="edit after the prefix")


@dataclass(frozen=True, kw_only=True)
class EditEffects:
    """Effects on margins, the logit of what was said minus that of what should stand there; on the CPU.

    Attributes:
        margins: of the wished tokens.
        falls: how far each falls by each edit.
        harms: how many kept tokens each edit breaks: the sum of the shares of their margins over their runners-up that
            it takes; what it adds to one counts against what it takes of another.
    """

    margins: Float[Tensor, "wished"]
    falls: Float[Tensor, "wished edit"]
    harms: Float[Tensor, "edit"]


def edit_effects(model: PreTrainedModel, rows: Sequence[EditRow], *, max_tokens: int = 16384) -> list[EditEffects]:
    """The effects of all edits of answers, in their order.

    One forward pass, and a backward pass for each wished token and one for all that are kept.

    Args:
        model: in evaluation mode, with frozen parameters.
        rows: the answers; those of a batch share their backward passes.
        max_tokens: most tokens in one pass, padding included; a single longer row is passed alone.
    """
    found: dict[int, EditEffects] = {}
    for chunk in chunk_rows([row.row for row in rows], max_tokens):
        asked = [rows[index] for index in chunk]
        found.update(zip(chunk, _batch_effects(model, asked), strict=True))
    return [found[index] for index in range(len(rows))]


def _batch_effects(model: PreTrainedModel, rows: Sequence[EditRow]) -> list[EditEffects]:
    result = forward_rows(model, [row.row for row in rows])
    tables = [_Edits(model, result.embeddings[index], row) for index, row in enumerate(rows)]
    asked = [_asked(logits, row) for logits, row in zip(result.logits, rows, strict=False)]
    count = max(map(len, asked))
    falls: list[list[Tensor]] = [[] for _ in rows]
    for number in range(count):
        active = [index for index, each in enumerate(asked) if number < len(each)]
        values = [asked[index][number] for index in active]
        # Rows of a batch do not touch each other: the gradient of the sum holds that of each.
        (gradient,) = torch.autograd.grad(torch.stack(values).sum(), result.embeddings, retain_graph=number < count - 1)
        for index in active:
            falls[index].append(tables[index].falls(gradient[index]))
    return [
        EditEffects(
            margins=torch.stack(asked[index][: len(row.wished)]).detach().cpu(),
            falls=torch.stack(falls[index][: len(row.wished)]),
            harms=falls[index][-1] if row.kept else torch.zeros(len(row.edits)),
        )
        for index, row in enumerate(rows)
    ]


def _asked(logits: Float[Tensor, "output vocabulary"], row: EditRow) -> list[Tensor]:
    """What is differentiated: the margin of each wished token; those of kept ones, each in its own unit, together."""
    wished = [_margin(logits, *wish) for wish in row.wished]
    if not row.kept:
        return wished
    kept = torch.stack([_margin(logits, place, row.row.output_ids[place], RUNNER_UP) for place in row.kept])
    return [*wished, (kept / kept.detach().clamp(min=_LEAST_MARGIN)).sum()]


def _margin(logits: Float[Tensor, "output vocabulary"], place: int, said: int, other: int) -> Tensor:
    if other == RUNNER_UP:
        best = logits[place].detach().topk(2).indices.tolist()
        other = best[1] if best[0] == said else best[0]
    return logits[place, said] - logits[place, other]


class _Edits:
    """The embeddings of an answer's edits: a table of places by tokens, few of each."""

    @torch.no_grad()
    def __init__(self, model: PreTrainedModel, embeddings: Float[Tensor, "token hidden"], row: EditRow) -> None:
        places = torch.tensor([place - row.row.prefix for place, _ in row.edits], device=embeddings.device)
        tokens = torch.tensor([token for _, token in row.edits], device=embeddings.device)
        self.places, self.row = places.unique(return_inverse=True)
        unique, self.column = tokens.unique(return_inverse=True)
        self.said = embeddings.detach()[self.places].float()
        self.others = model.get_input_embeddings()(unique).float()

    @torch.no_grad()
    def falls(self, gradient: Float[Tensor, "token hidden"]) -> Float[Tensor, "edit"]:
        slopes = gradient[self.places].float()
        now = (slopes * self.said).sum(dim=-1, keepdim=True)
        return (now - slopes @ self.others.T)[self.row, self.column].cpu()
