"""Who is to blame, by every method, on episodes whose culprit is known; and what each method costs (ours)."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any, Literal

from transformers import PreTrainedModel

from framework.gbc.attribution.attribute import attribute, attribute_trace
from framework.gbc.attribution.baselines import attention_scores, leave_agents_out
from framework.gbc.attribution.credit_propagation import loss_starts
from framework.gbc.attribution.edge_weights import Scorer, compute_connections
from framework.gbc.attribution.options import (
    AttributionOptions,
    ConnectionOptions,
    CounterfactualEditOptions,
    GradientOptions,
    Reduction,
    Scalar,
    Score,
)
from framework.gbc.attribution.results import Attribution
from framework.gbc.attribution.token_gradients import TokenScores, token_scores
from framework.gbc.environments.microworld.episodes import Episode, Recorder, Remembered
from framework.gbc.environments.microworld.system import MODEL
from framework.gbc.environments.microworld.tasks import answer_loss
from framework.gbc.execution.runner import RunOptions
from framework.gbc.execution.teacher_forcing import TokenRow
from framework.gbc.language_models.local import LocalModel

Credit = Literal["walk", "complete"]
SCALARS: tuple[Scalar, ...] = ("finegrained", "sketched", "sum_squares")
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


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a method asked of the model, over all episodes.

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


@dataclass(frozen=True, kw_only=True)
class MethodScore:
    """How often a method names the culprit.

    Attributes:
        method: its name: for gradients `scalar/score/reduction/credit`, for edits `name/credit`.
        top1: share of the episodes, a tie of n nodes with the culprit among them counting 1/n.
        by_kind: the same for each kind of fault.
        cost: of naming them.
        hits: of every episode, in order.
    """

    method: str
    top1: float
    by_kind: dict[str, float]
    cost: Cost
    hits: tuple[float, ...]


def score_random(episodes: Sequence[Episode]) -> MethodScore:
    """Naming any agent or tool: the expected share."""
    return _score("random", episodes, [dict.fromkeys(_nodes(episode), 0.0) for episode in episodes], Cost())


def score_leave_one_out(model: LocalModel, episodes: Sequence[Episode]) -> MethodScore:
    """Each agent and tool silent in turn: the one without which the loss falls most."""
    started = time.perf_counter()
    options, remembered = RunOptions(on_empty="keep"), Remembered(model)
    recorder = Recorder()
    for episode in episodes:
        leave_agents_out(episode.fault.graph, {MODEL: recorder}, [episode.trace], answer_loss, options=options)
    remembered.reply(recorder.requests)
    blame: list[Mapping[str, float]] = []
    answers, tokens = 0, 0
    for episode in episodes:
        models = {MODEL: remembered}
        (found,) = leave_agents_out(episode.fault.graph, models, [episode.trace], answer_loss, options=options)
        blame.append(found.effects)
        answers, tokens = answers + found.calls, tokens + found.tokens
    return _score(
        "leave_one_out", episodes, blame, Cost(answers=answers, tokens=tokens, seconds=time.perf_counter() - started)
    )


def score_gradients(
    model: LocalModel,
    episodes: Sequence[Episode],
    *,
    scalars: Sequence[Scalar] = SCALARS,
    attention: bool = False,
) -> list[MethodScore]:
    """All variants of connection weights and credit; those of one scalar share their passes.

    Args:
        model: of the episodes.
        episodes: with a trace each.
        scalars: what is differentiated.
        attention: attention weights in place of gradients.
    """
    found: list[MethodScore] = []
    for scalar in scalars:
        blames: dict[tuple[Reduction, Score, Credit], list[Mapping[str, float]]] = {}
        counter = _Counter(attention_scores if attention else token_scores)
        for episode in episodes:
            for reduction, score in VARIANTS[:2] if attention else VARIANTS:
                options = ConnectionOptions(
                    gradients=GradientOptions(scalar=scalar, max_tokens=_MAX_TOKENS),
                    score=score,
                    reduction=reduction,
                    prompts=True,
                    code=True,
                )
                attribution = _attribute(model, episode, options, counter)
                for credit in CREDITS:
                    blames.setdefault((reduction, score, credit), []).append(blame_of(attribution, credit))
        for (reduction, score, credit), blame in blames.items():
            what = "attention" if attention else f"{scalar}/{score}"
            found.append(_score(f"{what}/{reduction}/{credit}", episodes, blame, counter.cost))
    return found


def score_edits(
    model: LocalModel, episodes: Sequence[Episode], *, edits: Mapping[str, CounterfactualEditOptions]
) -> list[MethodScore]:
    """Credit by edits, walked and complete.

    Args:
        model: of the episodes.
        episodes: with a trace each.
        edits: options by name.
    """
    found: list[MethodScore] = []
    for name, options in edits.items():
        blames: dict[Credit, list[Mapping[str, float]]] = {credit: [] for credit in CREDITS}
        started, rows, tokens = time.perf_counter(), 0, 0

        def count(module: object, args: object, kwargs: dict[str, Any]) -> None:
            nonlocal rows, tokens
            height, width = kwargs["inputs_embeds"].shape[:2]
            cache = kwargs["past_key_values"]
            # What stands before the first message, or before the prompt, is read by itself, for passes that follow.
            is_prompt = cache is not None and not cache.get_seq_length()
            rows, tokens = rows + height * (not is_prompt), tokens + int(kwargs["attention_mask"][:, -width:].sum())

        hook = model.model.register_forward_pre_hook(count, with_kwargs=True)
        try:
            for episode in episodes:
                (attribution,) = attribute(
                    [episode.trace],
                    episode.fault.graph,
                    {MODEL: model},
                    [episode.loss],
                    AttributionOptions(edits=options),
                )
                for credit in CREDITS:
                    blames[credit].append(blame_of(attribution, credit))
        finally:
            hook.remove()
        cost = Cost(passes=rows, tokens=tokens, seconds=time.perf_counter() - started)
        found += [_score(f"{name}/{credit}", episodes, blames[credit], cost) for credit in CREDITS]
    return found


def blame_of(attribution: Attribution, credit: Credit) -> dict[str, float]:
    """Blame by node: the strongest trajectory walked from its end, or the credit that ends at the node."""
    if credit == "walk":
        steps = attribution.trajectories[0].steps if attribution.trajectories else ()
        names = [step.rpartition(" of ")[2].partition("@")[0] for step in steps]
        return {name: float(index) for index, name in enumerate(names)}
    return {each.name: each.own for each in attribution.agents}


def _attribute(model: LocalModel, episode: Episode, options: ConnectionOptions, scorer: Scorer) -> Attribution:
    trace, loss = episode.trace, episode.loss
    graph, starts = episode.fault.graph, [loss_starts(trace, loss)]
    (found,) = compute_connections([trace], graph, {MODEL: model}, [loss.value], options, scorer, starts=starts)
    return attribute_trace(trace, found, loss, AttributionOptions(connections=options, edits=None))


class _Counter:
    """A scorer that counts, and remembers the last scores: variants of one scalar share a pass."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer, self.cost = scorer, Cost()
        self.asked: tuple[TokenRow, ...] = ()
        self.scores: dict[TokenRow, TokenScores] = {}

    def __call__(self, model: PreTrainedModel, rows: Sequence[TokenRow], options: GradientOptions) -> list[TokenScores]:
        new = list(dict.fromkeys(row for row in rows if row not in self.scores))
        if new:
            started = time.perf_counter()
            self.scores = dict(zip(new, self.scorer(model, new, options), strict=True))
            self.cost = Cost(
                passes=self.cost.passes + len(new),
                tokens=self.cost.tokens + sum(len(row.input_ids) + len(row.output_ids) - 1 for row in new),
                seconds=self.cost.seconds + time.perf_counter() - started,
            )
        return [self.scores[row] for row in rows]


def _nodes(episode: Episode) -> list[str]:
    graph = episode.fault.graph
    return [node.name for node in (*graph.agents, *graph.tools)]


def _score(method: str, episodes: Sequence[Episode], blames: Sequence[Mapping[str, float]], cost: Cost) -> MethodScore:
    hits: list[float] = []
    for episode, blame in zip(episodes, blames, strict=True):
        of_nodes = {name: blame.get(name, float("-inf")) for name in _nodes(episode)}
        most = max(of_nodes.values())
        blamed = [name for name, value in of_nodes.items() if value >= most - 1e-12]
        hits.append((episode.fault.culprit in blamed) / len(blamed))
    kinds = list(dict.fromkeys(episode.fault.kind for episode in episodes))
    by_kind = {
        kind: mean(hit for hit, episode in zip(hits, episodes, strict=True) if episode.fault.kind == kind)
        for kind in kinds
    }
    return MethodScore(method=method, top1=mean(hits), by_kind=by_kind, cost=cost, hits=tuple(hits))
