"""Attribution: the walk along the strongest connections (published) and complete credit by path products (ours).

Walk: from the loss along the m strongest connections into every output, to the inputs; each way is a trajectory.

Complete credit: the loss is handed back from the outputs; every step passes what it is given on to its inputs, token
by token, in the shares of its connections. What reaches an input is the sum over all paths of the products of the
shares on them, and the credits of the inputs add up to the loss. The completeness gap is what got lost: at steps whose
connections all have weight 0. Inputs are user turns, prompts (those of agents without connections, or all with
`ConnectionOptions.prompts`) and tools that read nothing.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from framework.core.console import tracked
from framework.core.errors import ConfigError
from framework.gbc.attribution.counterfactual_edits import connections_by_edits
from framework.gbc.attribution.credit_propagation import loss_starts, output_units, propagate_to_source
from framework.gbc.attribution.edge_weights import Connection, Scorer, StepConnections, compute_connections
from framework.gbc.attribution.options import AttributionOptions
from framework.gbc.attribution.results import (
    LOSS,
    AgentCredit,
    Attribution,
    Attributions,
    EdgeCredit,
    MessageCredit,
    Trajectory,
)
from framework.gbc.attribution.token_gradients import token_scores
from framework.gbc.graph.spec import Graph
from framework.gbc.graph.trace import Span, Step, Trace
from framework.gbc.graph.verbal_loss import VerbalLoss
from framework.gbc.language_models.interface import LanguageModel
from framework.gbc.shapes import Credit, floats

_SHOWN_TOGETHER = 8
"""Traces in a pass, where progress is shown."""


def attribute(
    traces: Sequence[Trace],
    graph: Graph,
    models: Mapping[str, LanguageModel],
    losses: Sequence[VerbalLoss],
    options: AttributionOptions = AttributionOptions(),
    scorer: Scorer = token_scores,
    *,
    progress: bool = False,
) -> Attributions:
    """The attribution of every trace, from one batched pass; in a notebook, the result shows itself.

    Args:
        traces: runs that did not fail, fresh or recorded.
        graph: that made them.
        models: whose gradients or answers are needed.
        losses: one for each trace.
        options: how.
        scorer: of the tokens that agents read: gradients, or `baselines.attention_scores` to compare with.
        progress: show how far it is; the traces then come in passes of 8.

    Raises:
        ConfigError: a failed trace, another number of losses, or what `compute_connections` finds.
    """
    if len(traces) != len(losses):
        raise ConfigError(f"{len(traces)} traces and {len(losses)} losses", hint="give a loss for each trace")
    for trace in traces:
        if trace.failure is not None:
            raise ConfigError(f"the run of task {trace.id!r} failed ({trace.failure})", hint="leave failed traces out")
    size = _SHOWN_TOGETHER if progress else max(1, len(traces))
    starts = range(0, len(traces), size)
    found = Attributions()
    for start in tracked(starts, "attributing") if progress else starts:
        some, theirs = traces[start : start + size], losses[start : start + size]
        connections = _connect(some, graph, models, theirs, options, scorer)
        found += [attribute_trace(*each, options) for each in zip(some, connections, theirs, strict=True)]
    return found


def _connect(
    traces: Sequence[Trace],
    graph: Graph,
    models: Mapping[str, LanguageModel],
    losses: Sequence[VerbalLoss],
    options: AttributionOptions,
    scorer: Scorer,
) -> list[StepConnections]:
    """By edits where they are asked for and the loss has places, otherwise by gradients."""
    by_edits = [_method(options, loss) == "edits" for loss in losses]
    found: dict[int, StepConnections] = {}
    for edits in (True, False):
        chosen = [index for index, each in enumerate(by_edits) if each == edits]
        some, theirs = [traces[index] for index in chosen], [losses[index] for index in chosen]
        if not chosen:
            continue
        if edits and options.edits is not None:
            each = connections_by_edits(some, graph, models, theirs, options.edits, options.connections)
        else:
            each = compute_connections(
                some,
                graph,
                models,
                [loss.value for loss in theirs],
                options.connections,
                scorer,
                starts=[loss_starts(trace, loss) for trace, loss in zip(some, theirs, strict=True)],
            )
        found.update(zip(chosen, each, strict=True))
    return [found[index] for index in range(len(traces))]


def attribute_trace(
    trace: Trace, connections: StepConnections, loss: VerbalLoss, options: AttributionOptions
) -> Attribution:
    """The attribution of one trace whose connections are known; other walks or losses need no further pass.

    Args:
        trace: a run that did not fail.
        connections: of each of its steps.
        loss: of the run.
        options: of the walk.
    """
    units = {step.name: output_units(step) for step in trace.steps}
    credits = {name: torch.zeros(len(spans), dtype=torch.float64) for name, spans in units.items()}
    edges: list[EdgeCredit] = []
    prompts: list[MessageCredit] = []
    own: dict[str, float] = dict.fromkeys((step.name for step in trace.steps), 0.0)
    starts = loss_starts(trace, loss)
    for name, start in starts.items():
        credits[name] += loss.value * start
        edges.append(_output_edge(name, start.sum().item(), loss.value))
    for step in reversed(trace.steps):
        credit, total = credits[step.name], credits[step.name].sum().item()
        if not connections[step.name]:
            own[step.name] += total
        for connection in connections[step.name]:
            passed = connection.propagate(credit)
            edges.append(_edge(connection, step.name, passed.sum().item()))
            if connection.kind in ("prompt", "code"):
                own[step.name] += passed.sum().item()
                if connection.kind == "prompt":
                    prompts.append(_prompt(connection, passed, step))
            else:
                source = trace.step(connection.source)
                credits[source.name] += propagate_to_source(passed, connection, step, source, units[source.name])
    trajectories = sorted(_walks(trace, connections, starts, credits, options), key=lambda walk: -walk.weight)
    return Attribution(
        id=trace.id,
        loss=loss.value,
        loss_text=loss.text,
        agents=_agents(trace, credits, own, trajectories),
        messages=tuple(_message(step, units[step.name], credits[step.name]) for step in trace.steps),
        prompts=tuple(reversed(prompts)),
        edges=tuple(edges),
        trajectories=tuple(trajectories),
        gap=loss.value - sum(own.values()),
        options=options,
        method=_method(options, loss),
    )


def _method(options: AttributionOptions, loss: VerbalLoss) -> Literal["edits", "gradients"]:
    """Edits begin at wrong places of an output; without them there are the gradients."""
    return "edits" if options.edits is not None and loss.places else "gradients"


def _edge(connection: Connection, target: str, credit: float) -> EdgeCredit:
    return EdgeCredit(
        source=connection.source,
        target=target,
        kind=connection.kind,
        estimator=connection.estimator,
        weight=connection.weight.mean().item(),
        share=connection.share.mean().item(),
        credit=credit,
    )


def _output_edge(name: str, share: float, loss: float) -> EdgeCredit:
    return EdgeCredit(
        source=name,
        target=LOSS,
        kind="output",
        estimator="pass_through",
        weight=share,
        share=share,
        credit=share * loss,
    )


def _message(step: Step, units: tuple[Span, ...], credit: Credit) -> MessageCredit:
    return MessageCredit(
        step=step.name,
        node=step.node,
        text=step.output,
        credit=credit.sum().item(),
        spans=units,
        token_credits=tuple(floats(credit)),
    )


def _prompt(connection: Connection, passed: Float[Tensor, "row"], step: Step) -> MessageCredit:
    block = connection.block
    assert block is not None
    assert connection.tokens is not None
    start, stop = block.chars
    spans = [step.input_spans[token] for token in range(*block.tokens)]
    credit = (passed[:, None] * connection.tokens).sum(dim=0)
    return MessageCredit(
        step=step.name,
        node=step.node,
        text=block.text,
        credit=passed.sum().item(),
        spans=tuple((max(a, start) - start, max(start, min(b, stop)) - start) for a, b in spans),
        token_credits=tuple(floats(credit)),
    )


def _agents(
    trace: Trace, credits: Mapping[str, Credit], own: Mapping[str, float], trajectories: Sequence[Trajectory]
) -> tuple[AgentCredit, ...]:
    nodes = list(dict.fromkeys(step.node for step in trace.steps))
    of_step = {step.name: step.node for step in trace.steps}
    weights = dict.fromkeys(nodes, 0.0)
    total = sum(trajectory.weight for trajectory in trajectories)
    for trajectory in trajectories:
        # A walk goes on where no connection has any weight; it still names its agents.
        share = trajectory.weight / total if total > 0 else 1 / len(trajectories)
        for node in {of_step[name] for name in trajectory.steps if name in of_step}:
            weights[node] += share
    return tuple(
        AgentCredit(
            name=node,
            through=sum(credits[step.name].sum().item() for step in trace.steps if step.node == node),
            own=sum(own[step.name] for step in trace.steps if step.node == node),
            walk=weights[node],
        )
        for node in nodes
    )


def _walks(
    trace: Trace,
    connections: StepConnections,
    starts: Mapping[str, Credit],
    credits: Mapping[str, Credit],
    options: AttributionOptions,
) -> Iterator[Trajectory]:
    generator = random.Random(f"{options.seed}/{trace.id}")
    kept = {
        step.name: _strongest(connections[step.name], credits[step.name], options.top_m, generator)
        for step in trace.steps
    }
    waiting: list[tuple[tuple[str, ...], float]] = []
    for name, start in reversed(list(starts.items())):
        if start.sum() > 0:
            waiting.append(((LOSS, name), start.sum().item()))
    count = 0
    while waiting and count < options.max_trajectories:
        steps, weight = waiting.pop()
        following = kept[steps[-1]]
        if not following:
            count += 1
            yield Trajectory(steps=steps, weight=weight)
        for connection in following:
            share = weight * _mean_share(connection, credits[steps[-1]])
            if connection.kind in ("prompt", "code"):
                count += 1
                yield Trajectory(steps=(*steps, f"{connection.kind} of {connection.source}"), weight=share)
            else:
                waiting.append(((*steps, connection.source), share))


def _mean_share(connection: Connection, credit: Credit) -> float:
    """Mean over the output's tokens, by their credit where they have any: wrong tokens lead the walk."""
    if len(connection.share) == len(credit) and credit.sum() > 0:
        return (connection.share * credit).sum().item() / credit.sum().item()
    return connection.share.mean().item()


def _strongest(
    connections: Sequence[Connection], credit: Credit, top_m: int, generator: random.Random
) -> list[Connection]:
    shuffled = generator.sample(list(connections), len(connections))
    shuffled.sort(key=lambda connection: -_mean_share(connection, credit))
    return shuffled[:top_m]
