"""Who is to blame for what: the records that attribution gives."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from framework.core.errors import ConfigError
from framework.gbc.attribution.counterfactual_edits import EditOptions
from framework.gbc.attribution.edge_weights import ConnectionOptions
from framework.gbc.graph.spec import Estimator
from framework.gbc.graph.trace import Span

LOSS = "loss"
"""Where trajectories begin."""


@dataclass(frozen=True, kw_only=True)
class AttributionOptions:
    """How blame is found.

    Args:
        connections: which connection weights, where there are no edits.
        edits: connections by edits (ours), for losses that know which places are wrong; None for gradients alone.
        top_m: of the walk: connections kept into every output.
        seed: of the walk: ties are broken at random, with the task's id.
        max_trajectories: most trajectories that are listed.
    """

    connections: ConnectionOptions = ConnectionOptions()
    edits: EditOptions | None = EditOptions()
    top_m: int = 1
    seed: int = 0
    max_trajectories: int = 1000

    def __post_init__(self) -> None:
        if self.top_m < 1 or self.max_trajectories < 1:
            raise ConfigError(f"top_m {self.top_m}, max_trajectories {self.max_trajectories}", hint="use 1 or more")


@dataclass(frozen=True, kw_only=True)
class EdgeCredit:
    """A connection of a trace.

    Attributes:
        source, target: steps; for a prompt or code both are the same step; the target of an output is `loss`.
        kind: what it is.
        estimator: what gave its weight.
        weight: mean over the output's tokens.
        share: of the target's connections, mean over the output's tokens, in [0, 1].
        credit: that flows over it, in units of the loss.
    """

    source: str
    target: str
    kind: Literal["message", "prompt", "code", "control", "output"]
    estimator: Estimator
    weight: float
    share: float
    credit: float


@dataclass(frozen=True, kw_only=True)
class MessageCredit:
    """A step's output or prompt, and in it every token.

    Attributes:
        step, node: whose it is.
        text: the output or the prompt.
        credit: that passes through it, in units of the loss.
        spans: of its tokens in the text; words where the tokens are unknown.
        token_credits: one for each span; they add up to `credit`.
    """

    step: str
    node: str
    text: str
    credit: float
    spans: tuple[Span, ...]
    token_credits: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class AgentCredit:
    """A node over all its steps.

    Attributes:
        name: of the node.
        through: credit that passes through its outputs, in units of the loss.
        own: credit that ends at it, in units of the loss: at its prompt or code, or at the input that it is.
        walk: share of the trajectories that pass through it, each weighing as the product of its shares.
    """

    name: str
    through: float
    own: float
    walk: float


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """A walk from the loss to an input.

    Attributes:
        steps: `loss`, then the steps; a walk that ends at an agent's prompt ends with `prompt of STEP`, at a tool's
            code with `code of STEP`.
        weight: product of the shares along it.
    """

    steps: tuple[str, ...]
    weight: float


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """The blame for one trace.

    Attributes:
        id: of the task.
        loss: its value.
        loss_text: its words.
        agents: credit of every node that ran, agents and others, in topological order.
        messages: credit of every step's output.
        prompts: credit of the prompts and their tokens, where they are inputs (`ConnectionOptions.prompts`).
        edges: credit of every connection.
        trajectories: of the walk, the strongest first.
        gap: the loss minus the credits of the inputs.
        options: how it was found.
        count: traces that it is the mean of; 1 for a trace.
    """

    id: str
    loss: float
    loss_text: str
    agents: tuple[AgentCredit, ...]
    messages: tuple[MessageCredit, ...]
    prompts: tuple[MessageCredit, ...]
    edges: tuple[EdgeCredit, ...]
    trajectories: tuple[Trajectory, ...]
    gap: float
    options: AttributionOptions = field(repr=False)
    count: int = 1

    @property
    def heading(self) -> str:
        """What it is about."""
        return f"task {self.id}" if self.count == 1 else f"mean of {self.count} tasks"

    def credit_of(self, name: str) -> AgentCredit:
        """The credit of a node; zero if it did not run."""
        none = AgentCredit(name=name, through=0.0, own=0.0, walk=0.0)
        return next((agent for agent in self.agents if agent.name == name), none)

    def ranking(self, by: Literal["through", "own", "walk"]) -> list[str]:
        """The nodes' names, the most blamed first; equals in the order in which they ran."""
        return [agent.name for agent in sorted(self.agents, key=lambda agent: -getattr(agent, by))]


def mean_credits(
    credits: Sequence[Sequence[AgentCredit]], losses: Sequence[float], counts: Sequence[int] | None = None
) -> tuple[AgentCredit, ...]:
    """The nodes' credits over several runs: means, those of the walk weighted by the losses.

    Args:
        credits: of each run, its nodes'; a node that did not run has none.
        losses: of each run.
        counts: runs that each of them is the mean of; by default 1.
    """
    counts = [1] * len(losses) if counts is None else counts
    total, total_loss = sum(counts), sum(loss * n for loss, n in zip(losses, counts, strict=True)) or 1.0
    sums: dict[str, list[float]] = {}
    for run, loss, count in zip(credits, losses, counts, strict=True):
        for each in run:
            through, own, walk = sums.setdefault(each.name, [0.0, 0.0, 0.0])
            sums[each.name] = [through + each.through * count, own + each.own * count, walk + each.walk * loss * count]
    return tuple(
        AgentCredit(name=name, through=through / total, own=own / total, walk=walk / total_loss)
        for name, (through, own, walk) in sums.items()
    )


def mean_attribution(attributions: Sequence[Attribution], order: Sequence[str]) -> Attribution:
    """The mean over traces of one graph, without texts and tokens: what a plot of all of them shows.

    Credits are means over all traces, so that they add up to the mean loss; weights and shares are means over the
    traces that have the connection, and trajectories weigh by the losses. Of means, each counts as its traces do: the
    mean of means is the mean over all traces, but for the weights and shares of connections that only some have.

    Args:
        attributions: at least one, of traces or means.
        order: the graph's steps, in topological order.
    """
    count = sum(found.count for found in attributions)
    total = sum(found.loss * found.count for found in attributions) or 1.0
    edges: dict[tuple[str, ...], list[tuple[EdgeCredit, int]]] = defaultdict(list)
    messages: dict[str, list[tuple[MessageCredit, int]]] = defaultdict(list)
    walks: dict[tuple[str, ...], float] = defaultdict(float)
    for found in attributions:
        for edge in found.edges:
            edges[edge.source, edge.target, edge.kind, edge.estimator].append((edge, found.count))
        for message in found.messages:
            messages[message.step].append((message, found.count))
        for walk in found.trajectories:
            walks[walk.steps] += walk.weight * found.loss * found.count / total
    return Attribution(
        id=attributions[0].id if count == 1 else "mean",
        loss=sum(found.loss * found.count for found in attributions) / count,
        loss_text="",
        agents=mean_credits(
            [found.agents for found in attributions],
            [found.loss for found in attributions],
            [found.count for found in attributions],
        ),
        messages=tuple(
            MessageCredit(
                step=name,
                node=messages[name][0][0].node,
                text="",
                credit=sum(message.credit * times for message, times in messages[name]) / count,
                spans=(),
                token_credits=(),
            )
            for name in order
            if name in messages
        ),
        prompts=(),
        edges=tuple(
            replace(
                each[0][0],
                weight=sum(edge.weight * times for edge, times in each) / sum(times for _, times in each),
                share=sum(edge.share * times for edge, times in each) / sum(times for _, times in each),
                credit=sum(edge.credit * times for edge, times in each) / count,
            )
            for each in edges.values()
        ),
        trajectories=tuple(
            Trajectory(steps=steps, weight=weight) for steps, weight in sorted(walks.items(), key=lambda item: -item[1])
        ),
        gap=sum(found.gap * found.count for found in attributions) / count,
        options=attributions[0].options,
        count=count,
    )
