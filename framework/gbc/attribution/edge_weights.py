"""Connection weights of traces: for every step, how much each of its inputs mattered for its output.

Edges with gradients get theirs from one batched pass for all steps of all traces that share a model; the others from
the estimator that the graph declares.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from framework.core.errors import ConfigError
from framework.gbc.attribution.estimators import Estimates, leave_one_out, score_function
from framework.gbc.attribution.options import ConnectionOptions, GradientOptions, Reduction, Score
from framework.gbc.attribution.token_gradients import TokenScores, token_scores
from framework.gbc.execution.teacher_forcing import TokenRow
from framework.gbc.graph.spec import Agent, Estimator, Graph, UserTurn
from framework.gbc.graph.trace import Block, Span, Step, Trace
from framework.gbc.language_models.interface import LanguageModel
from framework.gbc.language_models.local import LocalModel
from framework.gbc.shapes import Credit, ints

Scorer = Callable[[PreTrainedModel, Sequence[TokenRow], GradientOptions], list[TokenScores]]
"""`token_scores`, or what it is compared with."""


@dataclass(frozen=True, kw_only=True)
class Connection:
    """One input of a step.

    Attributes:
        source: the step whose output it is; for a prompt or code, the step itself.
        kind: a message, the agent's prompt, the tool's code, or the decision that the step runs.
        estimator: what gave the weight.
        block: where it lies in the input; None for code and control.
        weight: as estimated, a row for each output token where the gradient tells them apart, otherwise one row.
        share: of the step's credit, per row; the shares of a row add up to 1, or to 0 where no input had any weight.
        tokens: how its credit is spread over the block's tokens, `row token`, each row adding up to 1; None where the
            tokens are unknown.
        parts: spans of the source's output that stand in place of the block's tokens; None where those are meant.
    """

    source: str
    kind: Literal["message", "prompt", "code", "control"]
    estimator: Estimator
    block: Block | None
    weight: Float[Tensor, "row"]
    share: Float[Tensor, "row"]
    tokens: Float[Tensor, "row token"] | None
    parts: tuple[Span, ...] | None = None

    def propagate(self, credit: Float[Tensor, "output"]) -> Float[Tensor, "row"]:
        """What it is given of the credit of the step's output tokens: a row for each of them, or one for all."""
        per_row = credit if len(self.share) > 1 else credit.sum()[None]
        return per_row * self.share if len(credit) else self.share * 0

    @classmethod
    def without_credit(cls, block: Block) -> "Connection":
        """Of a step that has none to give."""
        start, stop = block.tokens
        return cls(
            source=block.source,
            kind=block.kind,
            estimator="gradient",
            block=block,
            weight=torch.zeros(1, dtype=torch.float64),
            share=torch.zeros(1, dtype=torch.float64),
            tokens=torch.zeros(1, stop - start, dtype=torch.float64),
        )


StepConnections = Mapping[str, tuple[Connection, ...]]
"""The connections of a trace by the step that they lead to."""


def compute_connections(
    traces: Sequence[Trace],
    graph: Graph,
    models: Mapping[str, LanguageModel],
    losses: Sequence[float],
    options: ConnectionOptions,
    scorer: Scorer = token_scores,
    *,
    starts: Sequence[Mapping[str, Credit]] = (),
) -> list[StepConnections]:
    """The connections of every step of traces.

    Args:
        traces: runs of `graph`, or of one with the same nodes; recorded ones will do.
        graph: for its tools and estimators.
        models: those whose gradients or answers are needed.
        losses: of each trace: `score_function` weighs by them.
        options: which weights.
        scorer: of the tokens that agents read.
        starts: of each trace, the outputs' units at which its loss begins, by step; where they are known, `sketched`
            tells these apart.

    Raises:
        ConfigError: an unknown node, or an agent with `gradient` whose model gives none.
    """
    scores = _gradient_scores(traces, graph, models, options, scorer, starts)
    estimates = estimates_of(traces, graph, models, losses, options)
    return [
        {
            step.name: step_connections(
                step,
                estimator_of(graph, step),
                scores.get((index, step.name)),
                estimates.get((index, step.name), {}),
                options,
            )
            for step in trace.steps
        }
        for index, trace in enumerate(traces)
    ]


def estimates_of(
    traces: Sequence[Trace],
    graph: Graph,
    models: Mapping[str, LanguageModel],
    losses: Sequence[float],
    options: ConnectionOptions,
) -> Estimates:
    """What the estimators `score_function` and `leave_one_out` give.

    Args:
        traces: as in `compute_connections`.
        graph: for its tools and estimators.
        models: those whose gradients or answers are needed.
        losses: of each trace.
        options: seed of requests, memory of gradients.

    Raises:
        ConfigError: a model that is needed is missing.
        ServerError: a server failed for good.
    """
    found = score_function(traces, graph, models, losses, options.gradients)
    for key, each in leave_one_out(traces, graph, models, options.estimate_seed).items():
        found[key] = {**found.get(key, {}), **each}
    return found


def estimator_of(graph: Graph, step: Step) -> Estimator:
    """What gives the weights of a step's connections.

    Raises:
        ConfigError: a step of no node of the graph.
    """
    if step.node not in graph.nodes:
        hint = "use the graph that made the trace"
        raise ConfigError(f"the trace has a node {step.node!r}, the graph has none", hint=hint)
    node = graph.nodes[step.node]
    # An output that the caller gave depends on no input by way of a model.
    if isinstance(node, UserTurn) or (isinstance(node, Agent) and step.finish == "given"):
        return "pass_through"
    return node.estimator


def model_of(models: Mapping[str, LanguageModel], step: Step) -> LocalModel:
    """The model of a step whose connections have gradients.

    Raises:
        ConfigError: a model that gives none.
    """
    model = models.get(step.model or "")
    if not isinstance(model, LocalModel) or not step.input_ids:
        raise ConfigError(
            f"agent {step.node!r} declares gradient, its model {step.model!r} gives none",
            hint="declare pass_through, leave_one_out or score_function",
        )
    return model


def _leaves(step: Step, prompts: bool) -> list[Block]:
    return [block for block in step.blocks if block.kind == "message" or prompts]


def _gradient_scores(
    traces: Sequence[Trace],
    graph: Graph,
    models: Mapping[str, LanguageModel],
    options: ConnectionOptions,
    scorer: Scorer,
    starts: Sequence[Mapping[str, Credit]],
) -> dict[tuple[int, str], tuple[int, TokenScores]]:
    """For each step with gradients: the length of its prefix and the scores after it."""
    rows: dict[str, list[tuple[tuple[int, str], TokenRow]]] = defaultdict(list)
    for index, trace in enumerate(traces):
        for step in trace.steps:
            leaves = [block for block in _leaves(step, options.prompts) if block.tokens[0] < block.tokens[1]]
            if estimator_of(graph, step) != "gradient":
                continue
            model = model_of(models, step)
            if leaves and step.output_ids:
                prefix = min(block.tokens[0] for block in leaves)
                start = starts[index].get(step.name) if starts else None
                blamed = () if start is None else tuple(ints(start.nonzero()[:, 0]))
                row = TokenRow.of(model, step, prefix=prefix, id=trace.id, blamed=blamed)
                rows[step.model or ""].append(((index, step.name), row))
    found: dict[tuple[int, str], tuple[int, TokenScores]] = {}
    for name, asked in rows.items():
        model = models[name]
        assert isinstance(model, LocalModel)
        scored = scorer(model.model, [row for _, row in asked], options.gradients)
        found.update({key: (row.prefix, scores) for (key, row), scores in zip(asked, scored, strict=True)})
    return found


def step_connections(
    step: Step,
    estimator: Estimator,
    scored: tuple[int, TokenScores] | None,
    estimated: Mapping[str, float],
    options: ConnectionOptions,
) -> tuple[Connection, ...]:
    """The connections of one step.

    Args:
        step: the step.
        estimator: what gives their weights.
        scored: the length of its prefix and the scores after it, where it has gradients.
        estimated: weights by source, 1 where one is missing.
        options: reduction, and whether prompts and code are inputs.
    """
    leaves = _leaves(step, options.prompts and scored is not None)
    # Of every block, before the scale of the scores: that cancels in shares, and may be too small for a number.
    tokens = [_block_scores(block, *scored, options.score) if scored is not None else None for block in leaves]
    scale = scored[1].scale(options.score) if scored is not None else 1.0
    weights = [
        torch.tensor([estimated.get(block.source, 1.0)], dtype=torch.float64)
        if scores is None
        else _reduce(scores, options.reduction)
        for block, scores in zip(leaves, tokens, strict=True)
    ]
    # Code and decisions have no scale that they could share with other inputs: an even share for each.
    fixed: list[tuple[str, Literal["code", "control"]]] = []
    if options.code and step.kind == "tool" and leaves:
        fixed.append((step.name, "code"))
    for source in step.controls:
        fixed.append((source, "control"))
    even = 1 / max(1, len(leaves) + len(fixed))
    rows = len(weights[0]) if weights else 1
    shares = normalise(torch.stack(weights, dim=1)) * (1 - even * len(fixed)) if weights else torch.zeros(1, 0)
    messages = (
        Connection(
            source=block.source,
            kind=block.kind,
            estimator=estimator,
            block=block,
            weight=weights[index] * scale,
            share=shares[:, index],
            tokens=None if scores is None else normalise(scores.abs()),
        )
        for index, (block, scores) in enumerate(zip(leaves, tokens, strict=True))
    )
    others = (
        Connection(
            source=source,
            kind=kind,
            estimator="pass_through",
            block=None,
            weight=torch.ones(rows, dtype=torch.float64),
            share=torch.full((rows,), even, dtype=torch.float64),
            tokens=None,
        )
        for source, kind in fixed
    )
    return (*messages, *others)


def _block_scores(block: Block, prefix: int, scores: TokenScores, score: Score) -> Float[Tensor, "row token"]:
    """Scores of a block's tokens, float64."""
    start, stop = (max(0, place - prefix) for place in block.tokens)
    return scores.of(score)[:, start:stop].double()


def _reduce(scores: Float[Tensor, "row token"], reduction: Reduction) -> Float[Tensor, "row"]:
    if not scores.shape[1]:
        return scores.new_zeros(scores.shape[0])
    if reduction == "sum":
        return scores.sum(dim=1).abs()
    return scores.abs().mean(dim=1) if reduction == "mean" else scores.abs().amax(dim=1)


def normalise(rows: Float[Tensor, "row token"]) -> Float[Tensor, "row token"]:
    """Rows that add up to 1; those of zeros stay."""
    total = rows.sum(dim=1, keepdim=True)
    return torch.where(total > 0, rows / torch.where(total > 0, total, 1), 0.0)
