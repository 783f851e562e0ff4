"""Who is to blame, by every method, on episodes whose culprit is known; and what each method costs (ours)."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Literal

from transformers import PreTrainedModel

from framework.gbc.attribution import attribute_trace, corrections_of
from framework.gbc.baselines import attention_scores, leave_agents_out
from framework.gbc.connections import ConnectionOptions, Reduction, Scorer, connect
from framework.gbc.credits import Attribution, AttributionOptions
from framework.gbc.environments.microworld.episodes import Episode, Recorder, Remembered
from framework.gbc.environments.microworld.system import MODEL
from framework.gbc.environments.microworld.tasks import SLOT, answer_loss
from framework.gbc.gradients import BY_TOKEN, GradientOptions, Scalar, Score, TokenRow, TokenScores, token_scores
from framework.gbc.losses import Place, VerbalLoss
from framework.gbc.models import LocalModel
from framework.gbc.run import RunOptions

Credit = Literal["walk", "complete", "excess"]
SCALARS: tuple[Scalar, ...] = ("finegrained", "contrast")
VARIANTS: tuple[tuple[Reduction, Score], ...] = (
    ("mean", "l1"),
    ("max", "l1"),
    ("mean", "gradient_input"),
    ("max", "gradient_input"),
    ("mean", "edit"),
    ("max", "edit"),
)
"""The published four, and ours."""
CREDITS: tuple[Credit, ...] = ("walk", "complete", "excess")
_MAX_TOKENS = 512
"""Of a pass: the long answers apart from the short ones, which saves padding."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a method asked of the model, over all episodes.

    Attributes:
        answers: that had to be generated, one by one token.
        passes: teacher-forced passes over recorded steps, with their backward passes.
        backwards: gradients taken, one for each output token where the scalar is of each by itself.
        tokens: read or generated, forwards.
        seconds: of wall time.
    """

    answers: int = 0
    passes: int = 0
    backwards: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class MethodScore:
    """How often a method names the culprit.

    Attributes:
        method: its name: for gradients `scalar/score/reduction/credit`.
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
    blame, answers, tokens = [], 0, 0
    for episode in episodes:
        models = {MODEL: remembered}
        (found,) = leave_agents_out(episode.fault.graph, models, [episode.trace], answer_loss, options=options)
        blame.append(found.blame)
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
                    gradients=GradientOptions(scalar=scalar, max_tokens=_MAX_TOKENS, edits=not attention),
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


def blame_of(attribution: tuple[Attribution, Attribution | None], credit: Credit) -> dict[str, float]:
    """Blame by node.

    Args:
        attribution: of the loss, and of the right slots of the same answer as if they were wrong.
        credit: `walk`: the strongest trajectory is walked from its end; `complete`: own credit; `excess`: own credit
            beyond that for the right slots.
    """
    wrong, right = attribution
    if credit == "walk":
        steps = wrong.trajectories[0].steps if wrong.trajectories else ()
        names = [step.rpartition(" of ")[2].partition("@")[0] for step in steps]
        return {name: float(index) for index, name in enumerate(names)}
    usual = {each.name: each.own for each in right.agents} if right is not None and credit == "excess" else {}
    return {each.name: each.own / wrong.loss - usual.get(each.name, 0.0) for each in wrong.agents}


def right_slots(episode: Episode) -> VerbalLoss | None:
    """A loss of 1 at the slots of the answer that are right; None where there are none."""
    (step,) = episode.trace.outputs
    wrong = {place.start for place in episode.loss.places}
    spans = [match.span(2) for match in SLOT.finditer(episode.trace.step(step).output)]
    places = tuple(Place(step=step, start=start, stop=stop) for start, stop in spans if start not in wrong)
    return VerbalLoss(value=1.0, text="", places=places) if places else None


def _attribute(
    model: LocalModel, episode: Episode, options: ConnectionOptions, scorer: Scorer
) -> tuple[Attribution, Attribution | None]:
    trace, loss, right = episode.trace, episode.loss, right_slots(episode)
    corrections, settings = [corrections_of(trace, loss)], AttributionOptions(connections=options)
    (found,) = connect([trace], episode.fault.graph, {MODEL: model}, [loss.value], options, scorer, corrections)
    usual = None if right is None else attribute_trace(trace, found, right, settings)
    return attribute_trace(trace, found, loss, settings), usual


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
            by_token = options.scalar in BY_TOKEN
            self.cost = Cost(
                passes=self.cost.passes + len(new),
                backwards=self.cost.backwards + sum(len(row.output_ids) if by_token else 1 for row in new),
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
