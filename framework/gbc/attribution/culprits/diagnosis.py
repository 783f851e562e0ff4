"""Who is at fault, in one sentence: by which method, and how sure (ours).

The evidence of a run (`evidence.py`) gives every node a score, linear in few numbers; the scores of all nodes that ran
give probabilities (a conditional logit, McFadden 1974). The weights were fitted on the choosing systems of
`framework bench blame --world real`, and judged on others: docs/benchmarks.md. Several failures of one system have one
culprit: their scores add up.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from framework.core.errors import ConfigError
from framework.gbc.attribution.culprits.evidence import Evidence, Gathered, gather_evidence
from framework.gbc.attribution.results import Attribution, mean_credits
from framework.gbc.graph.spec import Graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import VerbalLoss
from framework.gbc.language_models.interface import LanguageModel
from framework.gbc.language_models.local import LocalModel

Method = Literal["evidence", "edits", "gradients"]
SURE = 0.5
"""Below it nobody is named: "cannot tell" is an answer."""
WEIGHTS: Mapping[str, float] = {
    "made_up": 1.26,
    "lost": 2.97,
    "left_out": 6.63,
    "withheld": 2.42,
    "lacked": -2.86,
    "right": -1.55,
    "explained": -2.45,
    "is_output": -1.50,
    "sent": -4.82,
    "feeds": 4.64,
    "has_target": 1.17,
    "log_odds": 2.99,
    "supposed_odds": 3.06,
}
"""Of the features of `Evidence`."""
_REASONS = {
    "made_up": "it said what is wrong, and had read it nowhere",
    "lost": "it had read what was expected and said something else",
    "left_out": "it left out what it had read",
    "withheld": "it did not pass on what it had read",
    "feeds": "whoever read it was right to say what it said, given that",
    "supposed_odds": "its role and what it read imply what nobody said",
    "log_odds": "its role and what it read imply something else than what it said",
}


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What is concluded from the failed runs of a system.

    Attributes:
        probabilities: of each node that it is the culprit; they add up to 1.
        method: `evidence`, or credit `by edits` or `by gradients` where there is none.
        num_runs: failed runs that it is concluded from.
        reasons: what speaks for the node that is likeliest.
        notes: what a reader should know of the method, such as why it is not another one.
        passes, tokens: that the evidence took.
    """

    probabilities: dict[str, float]
    method: Method
    num_runs: int
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    passes: int = 0
    tokens: int = 0
    culprit: str | None = field(init=False)

    def __post_init__(self) -> None:
        likeliest = max(self.probabilities, key=lambda name: self.probabilities[name], default=None)
        sure = likeliest is not None and self.probabilities[likeliest] >= SURE
        object.__setattr__(self, "culprit", likeliest if sure else None)

    @property
    def sentence(self) -> str:
        """The conclusion, the method, and how sure it is."""
        ranked = sorted(self.probabilities.items(), key=lambda item: -item[1])
        runs = "1 failed run" if self.num_runs == 1 else f"{self.num_runs} failed runs"
        how = f"by {_METHODS[self.method]} in {runs}"
        notes = "".join(f"; {note}" for note in self.notes)
        if not ranked:
            return f"Cannot tell who is at fault: nothing to go by, {how}{notes}."
        if self.culprit is None:
            likely = " or ".join(f"{name} ({share:.2f})" for name, share in ranked[:2])
            return f"Cannot tell who is at fault: {likely}, {how}{notes}."
        reasons = f": {' and '.join(self.reasons)}" if self.reasons else ""
        sure = f"{ranked[0][1]:.2f} sure" if self.method == "evidence" else f"{ranked[0][1]:.2f} of the credit"
        return f"{self.culprit} is at fault ({sure}, {how}){reasons}{notes}."

    def __str__(self) -> str:
        """The sentence."""
        return self.sentence


_METHODS: dict[Method, str] = {
    "evidence": "evidence from roles and messages",
    "edits": "counterfactual edits",
    "gradients": "the size of gradients",
}


def diagnose(
    traces: Sequence[Trace],
    graph: Graph,
    models: Mapping[str, LanguageModel],
    losses: Sequence[VerbalLoss],
    attributions: Sequence[Attribution] = (),
) -> Diagnosis:
    """Who is at fault for failed runs of one system.

    By evidence where the losses tell what was expected and the models can read the agents' roles; otherwise by the
    credit of attributions, and it says why.

    Args:
        traces: runs that failed their task, at least one, without a failure of the run itself.
        graph: that made them.
        models: of its agents; for those on a server, the first local model reads their roles.
        losses: of the traces.
        attributions: of the traces, for where evidence cannot be had.

    Raises:
        ConfigError: no traces, or neither evidence nor attributions.
    """
    if not traces or len(traces) != len(losses):
        raise ConfigError(f"{len(traces)} traces and {len(losses)} losses", hint="give a loss for each of 1 or more")
    problem = why_no_evidence(graph, models, losses)
    if problem is None:
        return conclude(gather_evidence(traces, graph, models, losses), graph, notes=_notes(graph, models))
    if not attributions:
        raise ConfigError(f"no evidence: {problem}", hint="give the attributions of the traces")
    return _by_credit(attributions, graph, problem)


def why_no_evidence(graph: Graph, models: Mapping[str, LanguageModel], losses: Sequence[VerbalLoss]) -> str | None:
    """Why there can be no evidence; None where there can.

    Args:
        graph: of the runs.
        models: of its agents.
        losses: of the runs.
    """
    if not any(loss.expected_output or any(place.expected for place in loss.places) for loss in losses):
        return "the loss does not tell what was expected"
    for agent in graph.agents:
        model = models.get(agent.model)
        unknown = model.tokenizer.unk_token_id if isinstance(model, LocalModel) else None
        if isinstance(model, LocalModel) and unknown is not None and unknown in model.plain_tokens(agent.role):
            return f"model {agent.model!r} does not know the words of the role of {agent.name!r}"
    return None


def conclude(
    gathered: Sequence[Gathered],
    graph: Graph,
    *,
    weights: Mapping[str, float] = WEIGHTS,
    notes: tuple[str, ...] = (),
) -> Diagnosis:
    """The diagnosis from the evidence of one failed run or several.

    Args:
        gathered: of each run.
        graph: that made them.
        weights: of the evidence's features.
        notes: to be added.
    """
    nodes = [node.name for node in (*graph.agents, *graph.tools)]
    shares = probabilities([each.features for each in gathered], nodes, weights)
    likeliest = max(shares, key=lambda name: shares[name], default=None)
    reasons = () if likeliest is None else _reasons([each.nodes.get(likeliest) for each in gathered], weights)
    return Diagnosis(
        probabilities=shares,
        method="evidence",
        num_runs=len(gathered),
        reasons=reasons,
        notes=notes,
        passes=sum(each.passes for each in gathered),
        tokens=sum(each.tokens for each in gathered),
    )


def probabilities(
    runs: Sequence[Mapping[str, Mapping[str, float]]], nodes: Sequence[str], weights: Mapping[str, float] = WEIGHTS
) -> dict[str, float]:
    """Of each node that it is the culprit of all runs.

    The sum of the scores over n runs is divided by the square root of n: failures of one fault resemble each other,
    and are less than n independent pieces of evidence.

    Args:
        runs: the features of each run's evidence by node; those that did not run have none.
        nodes: all that could be at fault.
        weights: of the evidence's features.
    """
    scores: dict[str, float] = defaultdict(float)
    for run in runs:
        for name in nodes:
            scores[name] += _score(run[name], weights) if name in run else _ABSENT
    if not scores:
        return {}
    scaled = {name: scores[name] / math.sqrt(len(runs)) for name in nodes}
    most = max(scaled.values())
    exponentials = {name: math.exp(value - most) for name, value in scaled.items()}
    total = sum(exponentials.values())
    return {name: value / total for name, value in exponentials.items()}


_ABSENT = -20.0
"""Score of a node in a run in which it said nothing."""


def _score(features: Mapping[str, float], weights: Mapping[str, float]) -> float:
    return sum(weight * features[name] for name, weight in weights.items())


def _reasons(found: Sequence[Evidence | None], weights: Mapping[str, float]) -> tuple[str, ...]:
    """The two strongest pieces of evidence for a node."""
    totals: dict[str, float] = defaultdict(float)
    for evidence in found:
        for name, value in ({} if evidence is None else evidence.features).items():
            if name in _REASONS and weights.get(name, 0.0) * value > 0 and value > 0:
                totals[name] += weights[name] * value
    return tuple(_REASONS[name] for name in sorted(totals, key=lambda name: -totals[name])[:2])


def _notes(graph: Graph, models: Mapping[str, LanguageModel]) -> tuple[str, ...]:
    remote = [agent.name for agent in graph.agents if not isinstance(models.get(agent.model), LocalModel)]
    if not remote:
        return ()
    local = next((name for name, model in models.items() if isinstance(model, LocalModel)), None)
    what = f"model {local!r} read the roles in their place" if local else "where their words come from alone counts"
    return (f"of {', '.join(remote)}, which no local model answers, {what}",)


def _by_credit(attributions: Sequence[Attribution], graph: Graph, problem: str) -> Diagnosis:
    """By the credit that ends at agents and tools."""
    credits = mean_credits(
        [each.agents for each in attributions],
        [each.loss for each in attributions],
        [each.count for each in attributions],
    )
    nodes = {node.name for node in (*graph.agents, *graph.tools)}
    own = {each.name: max(0.0, each.own) for each in credits if each.name in nodes}
    total = sum(own.values())
    by_edits = sum(each.method == "edits" for each in attributions)
    return Diagnosis(
        probabilities={name: value / total for name, value in own.items()} if total > 0 else {},
        method="edits" if 2 * by_edits >= len(attributions) else "gradients",
        num_runs=len(attributions),
        notes=(f"evidence was not looked for, since {problem}",),
    )
