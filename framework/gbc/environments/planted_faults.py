"""What benchmarks of planted faults share: who is named, whether that is right, and what it cost (ours)."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from transformers import PreTrainedModel

from framework.gbc.attribution.attribute import attribute_trace
from framework.gbc.attribution.credit_propagation import loss_starts
from framework.gbc.attribution.edge_weights import Scorer, compute_connections
from framework.gbc.attribution.options import (
    AttributionOptions,
    ConnectionOptions,
    GradientOptions,
    Reduction,
    Scalar,
    Score,
)
from framework.gbc.attribution.results import Attribution
from framework.gbc.attribution.token_gradients import TokenScores
from framework.gbc.execution.teacher_forcing import TokenRow
from framework.gbc.graph.spec import Graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import VerbalLoss
from framework.gbc.language_models.local import LocalModel

Credit = Literal["walk", "complete"]
VARIANTS: tuple[tuple[Reduction, Score], ...] = (
    ("mean", "l1"),
    ("max", "l1"),
    ("mean", "gradient_input"),
    ("max", "gradient_input"),
)
"""The published four."""
CREDITS: tuple[Credit, ...] = ("walk", "complete")
_MAX_TOKENS = 512
"""Of a pass: the long answers apart from the short ones, which saves padding."""
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a method asked of the model.

    Attributes:
        answers: that had to be generated, one by one token.
        passes: teacher-forced passes over recorded answers.
        tokens: read or generated, forwards.
        seconds: of wall time.
    """

    answers: int = 0
    passes: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        """Both together."""
        return Cost(
            answers=self.answers + other.answers,
            passes=self.passes + other.passes,
            tokens=self.tokens + other.tokens,
            seconds=self.seconds + other.seconds,
        )


class CountedScorer:
    """A scorer that counts, and remembers the last scores: variants of one scalar share a pass."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer, self.cost = scorer, Cost()
        self.scores: dict[TokenRow, TokenScores] = {}

    def __call__(self, model: PreTrainedModel, rows: Sequence[TokenRow], options: GradientOptions) -> list[TokenScores]:
        """The scores of answers, in their order; those that are new are asked for."""
        new = list(dict.fromkeys(row for row in rows if row not in self.scores))
        if new:
            started = time.perf_counter()
            self.scores = dict(zip(new, self.scorer(model, new, options), strict=True))
            self.cost += Cost(
                passes=len(new),
                tokens=sum(len(row.input_ids) + len(row.output_ids) - 1 for row in new),
                seconds=time.perf_counter() - started,
            )
        return [self.scores[row] for row in rows]


def counted(model: LocalModel, function: Callable[[], ResultT]) -> tuple[ResultT, Cost]:
    """What a function gives, and the model's forward passes in it.

    Args:
        model: whose passes are counted.
        function: that calls it.
    """
    started, rows, tokens = time.perf_counter(), 0, 0

    def count(module: object, args: object, kwargs: dict[str, Any]) -> None:
        nonlocal rows, tokens
        read = kwargs["inputs_embeds"] if kwargs.get("inputs_embeds") is not None else kwargs["input_ids"]
        height, width = read.shape[:2]
        cache, mask = kwargs.get("past_key_values"), kwargs.get("attention_mask")
        # What stands before the first message, or before the prompt, is read by itself, for passes that follow.
        is_prompt = cache is not None and not cache.get_seq_length()
        rows += height * (not is_prompt)
        tokens += height * width if mask is None else int(mask[:, -width:].sum())

    hook = model.model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        result = function()
    finally:
        hook.remove()
    return result, Cost(passes=rows, tokens=tokens, seconds=time.perf_counter() - started)


def blame_by_variants(
    models: Mapping[str, LocalModel],
    graph: Graph,
    trace: Trace,
    loss: VerbalLoss,
    scorer: CountedScorer,
    *,
    scalar: Scalar,
    attention: bool,
) -> dict[str, dict[str, float]]:
    """Blame of a failed run by all variants of connection weights and credit, with the prompts as inputs; by method.

    Args:
        models: of the agents, by the names that the graph has for them.
        graph: that was run.
        trace: the run.
        loss: of the run.
        scorer: gives token scores: of gradients, or attention weights.
        scalar: what is differentiated.
        attention: the scores are attention weights, which come in two variants.
    """
    found: dict[str, dict[str, float]] = {}
    for reduction, score in VARIANTS[:2] if attention else VARIANTS:
        options = ConnectionOptions(
            gradients=GradientOptions(scalar=scalar, max_tokens=_MAX_TOKENS),
            score=score,
            reduction=reduction,
            prompts=True,
            code=True,
        )
        starts = [loss_starts(trace, loss)]
        (connections,) = compute_connections([trace], graph, models, [loss.value], options, scorer, starts=starts)
        attribution = attribute_trace(trace, connections, loss, AttributionOptions(connections=options, edits=None))
        what = "attention" if attention else f"{scalar}/{score}"
        for credit in CREDITS:
            found[f"{what}/{reduction}/{credit}"] = blame_of(attribution, credit)
    return found


def blame_of(attribution: Attribution, credit: Credit) -> dict[str, float]:
    """Blame by node: the strongest trajectory walked from its end, or the credit that ends at the node."""
    if credit == "walk":
        steps = attribution.trajectories[0].steps if attribution.trajectories else ()
        names = [step.rpartition(" of ")[2].partition("@")[0] for step in steps]
        return {name: float(index) for index, name in enumerate(names)}
    return {each.name: each.own for each in attribution.agents}


def hit(blame: Mapping[str, float], nodes: Sequence[str], culprits: Collection[str]) -> float:
    """Whether a culprit has the most blame; of n nodes that have equally much, the share that are culprits.

    Args:
        blame: by node; a node without any counts as least.
        nodes: all that could be blamed.
        culprits: one node or more.
    """
    of_nodes = {name: blame.get(name, float("-inf")) for name in nodes}
    most = max(of_nodes.values())
    blamed = [name for name, value in of_nodes.items() if value >= most - 1e-12]
    return sum(name in culprits for name in blamed) / len(blamed)
