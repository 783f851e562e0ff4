"""The records that attribution gives: credit of agents, messages, edges and trajectories."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter
from typing import Literal

from framework.core.serialization import JsonDict, from_json
from framework.gbc.attribution.options import AttributionOptions
from framework.gbc.graph.spec import OLD_ESTIMATORS, Estimator
from framework.gbc.graph.trace import Span

LOSS = "loss"
"""Where trajectories begin."""
_OLD_OPTIONS = {"max_wished": "max_targets"}
"""Names of version 0.1 of options of edits, by the present ones."""


@dataclass(frozen=True, kw_only=True)
class EdgeCredit:
    """A connection of a trace.

    Attributes:
        source, target: steps; for a prompt or code both are the same step; the target of an output is `loss`.
        kind: what it is.
        estimator: what gave its weight.
        weight: mean over the output's tokens.
        share: of the target's connections, mean over the output's tokens, in [0, 1].
        credit: that it is given, in units of the loss.
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


@dataclass(frozen=True, kw_only=True, repr=False)
class Attribution:
    """The attribution of one trace.

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
        method: what gave the credit: `gradients` also where edits were asked for and the loss names no wrong places.
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
    method: Literal["edits", "gradients"] = "edits"

    def __repr__(self) -> str:
        most = max(self.agents, key=lambda agent: agent.own, default=None)
        named = "" if most is None else f", most own credit: {most.name} {most.own:.3g}"
        return f"Attribution({self.heading}, loss {self.loss:.4g}{named}, by {self.method})"

    def _repr_html_(self) -> str:
        """What a notebook shows: a table of the nodes, and the outputs with their tokens coloured."""
        # It knows this module.
        from framework.gbc.attribution.html_report import html_fragment

        return html_fragment([self])

    @property
    def heading(self) -> str:
        """What it is about."""
        return f"task {self.id}" if self.count == 1 else f"mean of {self.count} tasks"

    def credit_of(self, name: str) -> AgentCredit:
        """The credit of a node; zero if it did not run."""
        none = AgentCredit(name=name, through=0.0, own=0.0, walk=0.0)
        return next((agent for agent in self.agents if agent.name == name), none)

    def ranking(self, by: Literal["through", "own", "walk"]) -> list[str]:
        """The nodes' names, the one with most credit first; equals in the order in which they ran."""
        return [agent.name for agent in sorted(self.agents, key=lambda agent: -getattr(agent, by))]


class Attributions(list[Attribution]):
    """Attributions as a list that a notebook shows as tables, the worst first."""

    MOST_SHOWN = 5

    def _repr_html_(self) -> str:
        from framework.gbc.attribution.html_report import html_fragment

        return html_fragment(sorted(self, key=lambda found: -found.loss)[: self.MOST_SHOWN], count=len(self))


def attribution_from_json(value: JsonDict) -> Attribution:
    """The attribution of a parsed JSON value, also of one that was written when some fields had other names.

    Raises:
        ValueError: a missing or unknown field, or a value of another type.
    """
    options = {**value["options"]}
    if options["edits"] is not None:
        options["edits"] = {_OLD_OPTIONS.get(name, name): each for name, each in options["edits"].items()}
    edges = [{**edge, "estimator": OLD_ESTIMATORS.get(edge["estimator"], edge["estimator"])} for edge in value["edges"]]
    method = "gradients" if options["edits"] is None else "edits"
    return from_json(Attribution, {"method": method, **value, "options": options, "edges": edges})


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
        order: the graph's steps, in topological order; those of conversations, which no graph names, follow in the
            order of their connections.
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
            for name in _in_order(messages, order, [edge for found in attributions for edge in found.edges])
        ),
        prompts=(),
        edges=tuple(_mean_edge(each, count) for each in edges.values()),
        trajectories=tuple(
            Trajectory(steps=steps, weight=weight) for steps, weight in sorted(walks.items(), key=lambda item: -item[1])
        ),
        gap=sum(found.gap * found.count for found in attributions) / count,
        options=attributions[0].options,
        count=count,
        method=attributions[0].method,
    )


def _in_order(steps: Collection[str], order: Sequence[str], edges: Sequence[EdgeCredit]) -> list[str]:
    """Steps in an order, and those that it lacks behind it in that of their connections."""
    known = [name for name in order if name in steps]
    # By key, as they come.
    others = dict.fromkeys(steps)
    for name in known:
        others.pop(name, None)
    # Python 3.10 takes no type in brackets here.
    sorter: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(others, ()))
    for edge in edges:
        if edge.source != edge.target and edge.source in others and edge.target in others:
            sorter.add(edge.target, edge.source)
    return [*known, *sorter.static_order()]


def _mean_edge(found: Sequence[tuple[EdgeCredit, int]], count: int) -> EdgeCredit:
    """The mean of a connection over `count` traces, from those that have it and how often each counts."""
    times = sum(number for _, number in found)
    return replace(
        found[0][0],
        weight=sum(edge.weight * number for edge, number in found) / times,
        share=sum(edge.share * number for edge, number in found) / times,
        credit=sum(edge.credit * number for edge, number in found) / count,
    )
