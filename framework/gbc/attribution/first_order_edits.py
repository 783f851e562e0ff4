"""What other input tokens would change in an answer, to first order (ours).

The gradient of an output token's margin with respect to an input token's embedding tells how far the margin falls when
another token stands there: gradient · (embedding - other embedding). The first-order exchange of tokens is HotFlip's
(Ebrahimi et al. 2018, arXiv 1712.06751), there to attack a classifier, here to find what would have corrected an
answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from framework.core.errors import DataError
from framework.gbc.execution.teacher_forcing import Pass, TokenRow, chunk_rows, forward_rows
from framework.gbc.language_models.logits import LogitChunk
from framework.gbc.language_models.lora import active_adapters
from framework.gbc.language_models.transformers_compat import embeddings_of
from framework.gbc.shapes import EditValues, Embeddings, unique_inverse

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
                targets = len(rows[index].targets)
                chosen = slice(number, number + 1) if number < targets else slice(targets, None)
                start[index, [place for place, _, _ in _asked(rows[index])[chosen]]] = at_head[index][chosen]
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


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """Margins of a batch that are differentiated together: at most one of each output token.

    Attributes:
        number: which of the row's margins stands there; -1 where none does.
        said: the token whose logit it is.
        other: the token whose logit is taken off, or `RUNNER_UP`.
        is_kept: whether the margin counts in its own unit.
    """

    number: Int[Tensor, "batch output"]
    said: Int[Tensor, "batch output"]
    other: Int[Tensor, "batch output"]
    is_kept: Bool[Tensor, "batch output"]

    @classmethod
    def of(cls, result: Pass) -> "_Asked":
        """No margins yet; on the CPU, where they are put in one by one."""
        none = torch.full(result.targets.shape, -1, device="cpu")
        return cls(number=none, said=none.clamp(min=0), other=none.clamp(min=0), is_kept=none > 0)

    def to(self, device: torch.device) -> "_Asked":
        """The same on a device."""
        return _Asked(**{name: value.to(device) for name, value in vars(self).items()})

    def margins(self, chunk: LogitChunk) -> Float[Tensor, "batch position"]:
        """Those of some positions; 0 where none is asked for."""
        part = (slice(None), chunk.positions)
        said, other = self.said[part], self.other[part]
        best = chunk.logits.detach().topk(2, dim=2).indices
        runner_up = torch.where(best[..., 0] == said, best[..., 1], best[..., 0])
        other = torch.where(other == RUNNER_UP, runner_up, other)
        picked = chunk.logits.gather(2, torch.stack([said, other], dim=2))
        return (picked[..., 0] - picked[..., 1]).where(self.number[part] >= 0, 0.0)


def _rounds(result: Pass, rows: Sequence[EditCandidates]) -> list[_Asked]:
    """All margins; of an output token that should be one of several, each is in a round of its own."""
    rounds: list[_Asked] = []
    for index, row in enumerate(rows):
        for number, (place, said, other) in enumerate(_asked(row)):
            taken = next((each for each in rounds if each.number[index, place] < 0), None)
            if taken is None:
                rounds.append(taken := _Asked.of(result))
            taken.number[index, place], taken.said[index, place], taken.other[index, place] = number, said, other
            taken.is_kept[index, place] = number >= len(row.targets)
    return [each.to(result.hidden.device) for each in rounds]


def _margins(
    result: Pass, rows: Sequence[EditCandidates]
) -> tuple[list[Float[Tensor, "_"]], list[Float[Tensor, "_ hidden"]]]:
    """Margins of each row's targets and kept tokens, and their gradients at the head; kept ones in their own unit."""
    rounds = _rounds(result, rows)

    def differentiate(
        chunk: LogitChunk,
    ) -> tuple[Float[Tensor, "batch position round"], Float[Tensor, "batch position round hidden"]]:
        values: list[Float[Tensor, "batch position"]] = []
        gradients: list[Float[Tensor, "batch position hidden"]] = []
        for number, each in enumerate(rounds, start=1):
            margins = each.margins(chunk)
            values.append(margins.detach())
            unit = values[-1].clamp(min=_LEAST_MARGIN).where(each.is_kept[:, chunk.positions], 1.0)
            keep = number < len(rounds)
            gradients.append(torch.autograd.grad((margins / unit).sum(), chunk.read, retain_graph=keep)[0])
        return torch.stack(values, dim=2), torch.stack(gradients, dim=2)

    values, gradients = result.map_logits(differentiate)
    margins = [values.new_zeros(len(_asked(row))) for row in rows]
    at_head = [gradients.new_zeros(len(_asked(row)), gradients.shape[3]) for row in rows]
    for number, each in enumerate(rounds):
        for index in range(len(rows)):
            places = (each.number[index] >= 0).nonzero()[:, 0]
            margins[index][each.number[index, places]] = values[index, places, number]
            at_head[index][each.number[index, places]] = gradients[index, places, number]
    return margins, at_head


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
