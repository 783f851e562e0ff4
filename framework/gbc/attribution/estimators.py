"""Weights of edges where no gradient flows, and the counterfactual that the others are measured by (ours)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher

import torch

from framework.core.errors import ConfigError, FrameworkError
from framework.gbc.attribution.options import GradientOptions
from framework.gbc.attribution.token_gradients import output_log_probs, token_scores
from framework.gbc.execution.runner import build_request
from framework.gbc.execution.teacher_forcing import TokenRow, first_message
from framework.gbc.graph.spec import Agent, Graph, Tool
from framework.gbc.graph.trace import Step, Trace
from framework.gbc.language_models.interface import LanguageModel, Request
from framework.gbc.language_models.local import LocalModel

Estimates = dict[tuple[int, str], dict[str, float]]
"""Weights by (number of the trace, step), then by source."""


def text_distance(left: str, right: str) -> float:
    """0 for equal texts, 1 for texts with nothing in common: 1 minus the ratio of Python's difflib."""
    return 1 - SequenceMatcher(None, left, right, autojunk=False).ratio()


def leave_one_out(traces: Sequence[Trace], graph: Graph, models: Mapping[str, LanguageModel], seed: int) -> Estimates:
    """The effect of taking a block away, for the steps whose node declares `leave_one_out`.

    For a tool: it is run again without the block; the weight is the distance of the two outputs, 1 if it raises. For an
    agent with local weights: |log p(output) - log p(output without the block's tokens)|, without generating. For an
    agent on a server: it is asked again without the block; the distance of the two answers.

    Args:
        traces: runs of the graph.
        graph: for its tools and estimators.
        models: those whose answers are needed.
        seed: of requests, that of the run.

    Raises:
        ServerError: the server failed for good.
        ConfigError: a model that is needed is missing.
    """
    estimates: Estimates = {}
    local: dict[str, list[tuple[tuple[int, str], Step]]] = defaultdict(list)
    remote: dict[str, list[tuple[tuple[int, str], Step, str]]] = defaultdict(list)
    for index, trace in enumerate(traces):
        for step in trace.steps:
            node = graph.nodes.get(step.node)
            if not isinstance(node, Agent | Tool) or node.estimator != "leave_one_out" or not step.messages:
                continue
            key = (index, step.name)
            if isinstance(node, Tool):
                estimates[key] = _without_each(node, step, trace)
            elif step.input_ids and isinstance(models.get(node.model), LocalModel):
                local[node.model].append((key, step))
            elif step.finish != "given":
                remote[node.model] += [(key, step, block.source) for block in step.messages]
    for name, steps in local.items():
        estimates.update(_drops_of_log_prob(models[name], steps))
    for name, asked in remote.items():
        if name not in models:
            raise ConfigError(f"model {name!r} is needed to leave blocks out", hint="give it to the attribution")
        requests = [_request_without(traces[key[0]], graph, step, source, seed) for key, step, source in asked]
        for (key, step, source), reply in zip(asked, models[name].reply(requests), strict=True):
            if isinstance(reply, FrameworkError):
                raise reply
            estimates.setdefault(key, {})[source] = text_distance(step.output, reply.output)
    return estimates


def score_function(
    traces: Sequence[Trace],
    graph: Graph,
    models: Mapping[str, LanguageModel],
    losses: Sequence[float],
    options: GradientOptions,
) -> Estimates:
    """Reward-weighted gradients of whoever chose a call, for the steps whose node declares `score_function`.

    The estimator of Williams (1992), as a weight: |reward - baseline| · mean over the chooser's input tokens of
    |∇ log p(its output)|₁, with reward -loss and the mean reward of the traces as the baseline (0 for one trace).
    Sources without gradients weigh nothing; where no source has any, all weigh the same.

    Args:
        traces: runs of the graph.
        graph: for its estimators.
        models: those whose gradients are needed.
        losses: of each trace, 0 for a perfect one.
        options: memory; the scalar is always `sequence_log_prob`.
    """
    baseline = sum(losses) / len(losses) if len(losses) > 1 else 0.0
    rows_by_model: dict[str, dict[tuple[int, str], TokenRow]] = defaultdict(dict)
    targets: list[tuple[int, Step]] = []
    for index, trace in enumerate(traces):
        for step in trace.steps:
            node = graph.nodes.get(step.node)
            if not isinstance(node, Agent | Tool) or node.estimator != "score_function" or not step.messages:
                continue
            targets.append((index, step))
            for block in step.messages:
                source = trace.step(block.source)
                read = [message.tokens[0] for message in source.messages if message.tokens[0] < message.tokens[1]]
                model = models.get(source.model or "")
                if read and source.output_ids and source.model and isinstance(model, LocalModel):
                    rows_by_model[source.model][index, source.name] = TokenRow.of(model, source, prefix=min(read))
    norms: dict[tuple[int, str], float] = {}
    settings = GradientOptions(
        scalar="sequence_log_prob", max_tokens=options.max_tokens, checkpointing=options.checkpointing
    )
    for name, rows in rows_by_model.items():
        model = models[name]
        assert isinstance(model, LocalModel)
        scored = token_scores(model.model, list(rows.values()), settings)
        norms.update({key: scores.l1.mean().item() for key, scores in zip(rows, scored, strict=True)})
    estimates: Estimates = {}
    for index, step in targets:
        scale = abs(losses[index] - baseline)
        weights = {block.source: scale * norms.get((index, block.source), 0.0) for block in step.messages}
        estimates[index, step.name] = weights if any(weights.values()) else dict.fromkeys(weights, 1.0)
    return estimates


def _without_each(tool: Tool, step: Step, trace: Trace) -> dict[str, float]:
    outputs = {trace.step(block.source).node: trace.step(block.source).output for block in step.messages}
    distances: dict[str, float] = {}
    for block in step.messages:
        left = {node: text for node, text in outputs.items() if node != trace.step(block.source).node}
        try:
            distances[block.source] = text_distance(step.output, tool.function(left))
        except Exception:
            # It cannot do without: as far away as an output can be.
            distances[block.source] = 1.0
    return distances


@torch.no_grad()
def _drops_of_log_prob(model: LanguageModel, steps: Sequence[tuple[tuple[int, str], Step]]) -> Estimates:
    assert isinstance(model, LocalModel)
    rows: list[TokenRow] = []
    for _, step in steps:
        whole = TokenRow.of(model, step, prefix=first_message(step))
        for start, stop in [(0, 0), *(block.tokens for block in step.messages)]:
            ids = step.input_ids[:start] + step.input_ids[stop:]
            bound = None if whole.bound is None else whole.bound.without(start, stop)
            rows.append(replace(whole, input_ids=ids, prefix=min(whole.prefix, len(ids) - 1), bound=bound))
    sums = iter([values.sum().item() for values in output_log_probs(model.model, rows)])
    estimates: Estimates = {}
    for key, step in steps:
        whole = next(sums)
        estimates[key] = {block.source: abs(whole - next(sums)) for block in step.messages}
    return estimates


def _request_without(trace: Trace, graph: Graph, step: Step, source: str, seed: int) -> Request:
    agent = graph.nodes[step.node]
    assert isinstance(agent, Agent)
    seen = {
        trace.step(block.source).node: (block.source, trace.step(block.source).output)
        for block in step.messages
        if block.source != source
    }
    return build_request(agent, step.name, id=trace.id, seed=seed, seen=seen)
