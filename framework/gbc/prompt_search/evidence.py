"""What went wrong with the current prompts, and whom it is attributed to: what proposals rest on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from framework.gbc.attribution.attribute import attribute
from framework.gbc.attribution.culprits.diagnosis import Diagnosis, diagnose, why_no_evidence
from framework.gbc.attribution.options import AttributionOptions
from framework.gbc.attribution.results import AgentCredit, Attribution, Attributions, mean_credits
from framework.gbc.graph.spec import Graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import Loss, VerbalLoss
from framework.gbc.language_models.interface import LanguageModel

CreditKind = Literal["walk", "own", "through"]
"""A credit of an agent: its share of the walks, what ends at it, or what passes through it."""
BlameKind = Literal["walk", "own", "through", "diagnosis"]
"""A credit of an agent, or how likely the diagnosis of all failed runs together finds it at fault."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a proposal may rest on.

    Attributes:
        graph: with the current prompts.
        traces: of training tasks, those that did not fail and whose loss is not 0.
        losses: of each trace.
        attributions: of each trace; none where a diagnosis was asked for and does without.
        credits: means over the traces.
        diagnosis: of all traces together, if it was asked for and there are any.
        num_runs: runs of the graph that it took.
    """

    graph: Graph
    traces: tuple[Trace, ...]
    losses: tuple[VerbalLoss, ...]
    attributions: tuple[Attribution, ...]
    credits: tuple[AgentCredit, ...]
    diagnosis: Diagnosis | None = None
    num_runs: int = 0

    def credit_of(self, agent: str) -> AgentCredit:
        """The mean credit of an agent; zero if it ran in no trace."""
        none = AgentCredit(name=agent, through=0.0, own=0.0, walk=0.0)
        return next((credit for credit in self.credits if credit.name == agent), none)

    def score_of(self, agent: str, by: BlameKind) -> tuple[float, float]:
        """What agents are compared by: a credit or the diagnosis, and of equals the walk's credit."""
        credit = self.credit_of(agent)
        if by == "diagnosis":
            return (self.diagnosis.probabilities.get(agent, 0.0) if self.diagnosis else 0.0), credit.walk
        return getattr(credit, by), credit.walk


def gather_evidence(
    graph: Graph,
    models: Mapping[str, LanguageModel],
    loss: Loss,
    traces: Sequence[Trace],
    options: AttributionOptions,
    *,
    diagnosed: bool = False,
) -> Evidence:
    """Attributes the errors of training tasks.

    Args:
        graph: with the current prompts.
        models: by the names that the agents use.
        loss: of a trace that did not fail.
        traces: of training tasks; without any, the evidence is empty.
        options: how errors are attributed.
        diagnosed: whether the traces are also diagnosed together.
    """
    finished = [trace for trace in traces if trace.failure is None]
    pairs = [(trace, found) for trace, found in ((trace, loss(trace)) for trace in finished) if found.value > 0]
    wrong, losses = [trace for trace, _ in pairs], [found for _, found in pairs]
    # A diagnosis from roles and messages needs no gradients.
    needed = bool(pairs) and not (diagnosed and why_no_evidence(graph, models, losses) is None)
    attributions = attribute(wrong, graph, models, losses, options) if needed else Attributions()
    return Evidence(
        graph=graph,
        traces=tuple(wrong),
        losses=tuple(losses),
        attributions=tuple(attributions),
        credits=mean_credits([each.agents for each in attributions], [each.loss for each in attributions]),
        diagnosis=diagnose(wrong, graph, models, losses, attributions) if diagnosed and wrong else None,
        num_runs=len(traces),
    )
