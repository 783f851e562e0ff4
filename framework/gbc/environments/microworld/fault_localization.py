"""Who is to blame, by every method, on episodes whose culprit is known; and what each method costs (ours)."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import mean

from framework.gbc.attribution.attribute import attribute
from framework.gbc.attribution.baselines import attention_scores, leave_agents_out
from framework.gbc.attribution.options import (
    AttributionOptions,
    CounterfactualEditOptions,
    Scalar,
)
from framework.gbc.attribution.results import Attribution
from framework.gbc.attribution.token_gradients import token_scores
from framework.gbc.environments.microworld.episodes import Episode, Recorder, Remembered
from framework.gbc.environments.microworld.system import MODEL
from framework.gbc.environments.microworld.tasks import answer_loss
from framework.gbc.environments.planted_faults import (
    CREDITS,
    Cost,
    CountedScorer,
    Credit,
    blame_by_variants,
    blame_of,
    counted,
    hit,
)
from framework.gbc.execution.runner import RunOptions
from framework.gbc.language_models.local import LocalModel

SCALARS: tuple[Scalar, ...] = ("finegrained", "sketched", "sum_squares")


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
        blames: dict[str, list[Mapping[str, float]]] = {}
        counter = CountedScorer(attention_scores if attention else token_scores)
        for episode in episodes:
            of_episode = blame_by_variants(
                {MODEL: model},
                episode.fault.graph,
                episode.trace,
                episode.loss,
                counter,
                scalar=scalar,
                attention=attention,
            )
            for method, blame in of_episode.items():
                blames.setdefault(method, []).append(blame)
        found += [_score(method, episodes, blame, counter.cost) for method, blame in blames.items()]
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

        def attribute_all(options: CounterfactualEditOptions = options) -> list[Attribution]:
            return [
                attribute(
                    [episode.trace],
                    episode.fault.graph,
                    {MODEL: model},
                    [episode.loss],
                    AttributionOptions(edits=options),
                )[0]
                for episode in episodes
            ]

        attributions, cost = counted(model, attribute_all)
        for attribution, credit in product(attributions, CREDITS):
            blames[credit].append(blame_of(attribution, credit))
        found += [_score(f"{name}/{credit}", episodes, blames[credit], cost) for credit in CREDITS]
    return found


def _nodes(episode: Episode) -> list[str]:
    graph = episode.fault.graph
    return [node.name for node in (*graph.agents, *graph.tools)]


def _score(method: str, episodes: Sequence[Episode], blames: Sequence[Mapping[str, float]], cost: Cost) -> MethodScore:
    hits = [
        hit(blame, _nodes(episode), (episode.fault.culprit,)) for episode, blame in zip(episodes, blames, strict=True)
    ]
    kinds = list(dict.fromkeys(episode.fault.kind for episode in episodes))
    by_kind = {
        kind: mean(hit for hit, episode in zip(hits, episodes, strict=True) if episode.fault.kind == kind)
        for kind in kinds
    }
    return MethodScore(method=method, top1=mean(hits), by_kind=by_kind, cost=cost, hits=tuple(hits))
