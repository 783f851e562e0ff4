"""What the gradients are measured against: attention weights, and counterfactual runs without an agent's message."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel

from framework.core.errors import ConfigError
from framework.gbc.attribution.options import GradientOptions
from framework.gbc.attribution.token_gradients import TokenScores
from framework.gbc.execution.runner import RunOptions, run_graph
from framework.gbc.execution.teacher_forcing import TokenRow
from framework.gbc.graph.spec import Graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import Loss
from framework.gbc.language_models.interface import LanguageModel
from framework.gbc.language_models.transformers_compat import use_attention


@torch.no_grad()
def attention_scores(model: PreTrainedModel, rows: Sequence[TokenRow], options: GradientOptions) -> list[TokenScores]:
    """Attention of each output token to the input tokens, mean over layers and heads, in place of gradients.

    A scorer for `attribute`; all of its scores are the attention. One row at a time: to compare with, not for speed.

    Args:
        model: in evaluation mode; its attention is computed by the implementation that gives weights.
        rows: the answers.
        options: a row for each output token where the scalar is `finegrained` or `sketched`, otherwise their mean.

    Raises:
        ConfigError: an agent with a soft prompt, gates or an adapter.
    """
    for row in rows:
        if row.bound is not None:
            problem = f"agent {row.bound.agent!r} has a soft prompt, gates or an adapter"
            raise ConfigError(problem, hint="compare with attention without them")
    with use_attention(model, "eager"):
        return [_attention(model, row, options) for row in rows]


def _attention(model: PreTrainedModel, row: TokenRow, options: GradientOptions) -> TokenScores:
    ids = torch.tensor([[*row.input_ids, *row.output_ids[:-1]]], device=model.device)
    result = model(input_ids=ids, use_cache=False, output_attentions=True)
    first, stop = len(row.input_ids) - 1, len(row.input_ids)
    layers = torch.stack([layer[0, :, first:, row.prefix : stop].float().mean(dim=0) for layer in result.attentions])
    scores = layers.mean(dim=0).cpu()
    if options.scalar not in ("finegrained", "sketched"):
        scores = scores.mean(dim=0, keepdim=True)
    picks = torch.tensor(row.output_ids, device=model.device)[:, None]
    log_probs = result.logits[0, first:].float().log_softmax(dim=-1).gather(1, picks)[:, 0].cpu()
    return TokenScores(l1=scores, squared_l2=scores, gradient_input=scores, log_probs=log_probs, log_scale=0.0)


@dataclass(frozen=True, kw_only=True)
class Counterfactual:
    """What became of a run when each of its agents and tools was silent in turn.

    Attributes:
        effects: for each node, the loss of the run minus that without its messages: the larger, the more harm it did.
        calls: answers that models had to give for this.
        tokens: that models read and said for this, where they are known.
    """

    effects: dict[str, float]
    calls: int
    tokens: int = 0

    def ranking(self) -> list[str]:
        """The nodes' names, the one whose silence helps most first."""
        return sorted(self.effects, key=lambda name: -self.effects[name])


def leave_agents_out(
    graph: Graph,
    models: Mapping[str, LanguageModel],
    traces: Sequence[Trace],
    loss: Loss,
    *,
    options: RunOptions = RunOptions(),
    failed_loss: float = 1.0,
) -> list[Counterfactual]:
    """Runs each trace again once for each agent and tool in it, that node silent; only what depends on it runs again.

    Args:
        graph: that made the traces.
        models: of its agents.
        traces: runs that did not fail.
        loss: of a run.
        options: as the traces were made; empty answers are kept.
        failed_loss: value of a run that fails without the node.
    """
    jobs = [
        (index, node)
        for index, trace in enumerate(traces)
        for node in dict.fromkeys(step.node for step in trace.steps if step.kind != "user")
    ]
    runs = run_graph(
        graph,
        models,
        [{**traces[index].task, "id": traces[index].id} for index, _ in jobs],
        options=replace(options, on_empty="keep"),
        given=[_silent(traces[index], node) for index, node in jobs],
    )
    effects: list[dict[str, float]] = [{} for _ in traces]
    calls, tokens = [0] * len(traces), [0] * len(traces)
    for (index, node), run in zip(jobs, runs, strict=True):
        without = loss(run).value if run.failure is None else failed_loss
        effects[index][node] = loss(traces[index]).value - without
        answers = [step for step in run.steps if step.kind == "agent" and step.finish != "given"]
        calls[index] += len(answers)
        tokens[index] += sum(len(step.input_ids) + len(step.output_ids) for step in answers)
    return [Counterfactual(effects=e, calls=c, tokens=t) for e, c, t in zip(effects, calls, tokens, strict=True)]


def outputs_before(trace: Trace, node: str) -> dict[str, str]:
    """The outputs of the steps that do not depend on a node and are not its own: what a new run of it may keep."""
    return {name: output for name, output in _silent(trace, node).items() if trace.step(name).node != node}


def _silent(trace: Trace, node: str) -> dict[str, str]:
    """Outputs to be given: nothing by the node, what was said by all that does not depend on it."""
    changed: set[str] = set()
    given: dict[str, str] = {}
    for step in trace.steps:
        if step.node == node:
            changed.add(step.name)
            given[step.name] = ""
        elif changed & {*(block.source for block in step.messages), *step.controls}:
            changed.add(step.name)
        else:
            given[step.name] = step.output
    return given
