"""A loss that is differentiable through the whole graph: messages between agents are straight-through (ours).

A recorded run is passed again, teacher-forced. Agents with soft prompts (Lester et al. 2021, arXiv 2104.08691) read
them after their prompts, and those with adapters are passed with theirs. A message is read as one-hot(y) + p -
stop_gradient(p) (Bengio et al. 2013, arXiv 1308.3432), p the probabilities with which its author said the tokens y: the
values are those of the run, and gradients reach the author. Tokens that the reading agent's tokenization merged with
others stay constants. Only agents of one model are connected so. To agents that read it, an output that has a target is
a constant, too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from graphlib import TopologicalSorter
from itertools import takewhile

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from framework.core.devices import tensor_on
from framework.core.errors import ConfigError, DataError
from framework.gbc.graph.trace import Step, Trace
from framework.gbc.language_models.agent_parameters import BoundParameters, ParametersByAgent, soft_prompt_position
from framework.gbc.language_models.local import LocalModel
from framework.gbc.language_models.logits import consecutive_positions, hidden_at, over_chunks
from framework.gbc.language_models.lora import active_adapters
from framework.gbc.language_models.prefix_cache import frozen_prefix
from framework.gbc.language_models.transformers_compat import (
    embeddings_of,
    keeps_keys_and_values,
    passing_cache,
    vocabulary_size,
)
from framework.gbc.shapes import Embeddings, OutputValues


@dataclass(frozen=True, kw_only=True)
class StraightThroughLoss:
    """The loss of a batch of traces.

    Attributes:
        value: in nats, mean over the traces of the mean over all tokens of their targets of -log p; natural logarithm.
            So an agent that should say much weighs more than one that should say that there is nothing.
        connected_share: share of the message tokens between agents of the model that gradients pass through.
    """

    value: Float[Tensor, ""]
    connected_share: float


def make_soft_prompts(model: LocalModel, agents: Iterable[str], *, num_tokens: int, seed: int = 0) -> nn.ParameterDict:
    """Soft prompts in float32, `soft hidden` by agent; they begin as embeddings of tokens at random.

    Args:
        model: whose embeddings they are.
        agents: that get one each.
        num_tokens: length of each soft prompt.
        seed: of the tokens.

    Raises:
        ConfigError: no tokens.
    """
    if num_tokens < 1:
        raise ConfigError(f"soft prompts of {num_tokens} tokens", hint="use 1 or more")
    generator = torch.Generator().manual_seed(seed)
    vocabulary = vocabulary_size(model.model)
    prompts = ParametersByAgent()
    for agent in agents:
        # The generator's device by name: trainers make modules under their own default device.
        ids = torch.randint(vocabulary, (num_tokens,), generator=generator, device="cpu").to(model.device)
        prompts[agent] = nn.Parameter(embeddings_of(model.model, ids).detach().float().clone())
    return prompts


Target = str | Mapping[str, str]
"""What should be said: by the one output, or by several, by their nodes."""


def straight_through_loss(
    model: LocalModel,
    name: str,
    traces: Sequence[Trace],
    targets: Sequence[Target],
    weights: Sequence[float] | None = None,
    *,
    through_prompts: bool = True,
) -> StraightThroughLoss:
    """How unlikely the targets are as the outputs of recorded runs; gradients reach the agents' parameters.

    Args:
        model: with its soft prompts, gates and adapters, those with which the traces were made.
        name: of the model in the traces: agents of others are constants.
        traces: runs that did not fail.
        targets: the right output of each: of the one output, by an agent of the model, or of several; of these, those
            that ran and are of the model count.
        weights: of the traces, in place of their mean.
        through_prompts: adapters get gradients through the tokens of the prompts, too; otherwise these are read once
            for all traces, and what is kept of them is a constant (the prefix-based gradient of Yang et al. 2026).

    Raises:
        DataError: a trace without such an output.
    """
    losses, connected_share = _pass(model, name, traces, targets, through_prompts=through_prompts)
    whole = torch.stack(losses)
    value = whole.mean() if weights is None else (whole * tensor_on(whole.device, weights, torch.float32)).sum()
    return StraightThroughLoss(value=value, connected_share=connected_share)


def trained_outputs(name: str, trace: Trace, target: Target) -> dict[str, str]:
    """The outputs of a trace that are of the model and have a target, by step; empty if there are none.

    Args:
        name: of the model.
        trace: a run.
        target: what its outputs should be.
    """
    if isinstance(target, str):
        targeted = {trace.outputs[0]: target} if len(trace.outputs) == 1 else {}
    else:
        nodes = {step: trace.step(step).node for step in trace.outputs}
        targeted = {step: target[node] for step, node in nodes.items() if node in target}
    steps = {step: trace.step(step) for step in targeted}
    return {step: targeted[step] for step, ran in steps.items() if ran.model == name and ran.input_ids}


def _pass(
    model: LocalModel,
    name: str,
    traces: Sequence[Trace],
    targets: Sequence[Target],
    *,
    through_prompts: bool,
) -> tuple[list[Float[Tensor, ""]], float]:
    """The loss of each trace and the share of message tokens that gradients pass; as `straight_through_loss`."""
    targeted = [trained_outputs(name, trace, target) for trace, target in zip(traces, targets, strict=True)]
    for trace, found in zip(traces, targeted, strict=True):
        if not found:
            hint = f"use graphs with an output of model {name!r}, and a target for it"
            raise DataError(f"task {trace.id!r} has no output whose gradient is known", hint=hint)
    said: list[dict[str, Embeddings]] = [{} for _ in traces]
    counts = [0, 0]
    losses: list[list[OutputValues]] = [[] for _ in traces]
    for step_name, waiting in _waves(traces):
        # An output that was given, in some traces, has no tokens.
        index = [i for i in waiting if traces[i].step(step_name).model == name and traces[i].step(step_name).input_ids]
        if not index:
            continue
        steps = [traces[i].step(step_name) for i in index]
        outputs = [
            model.target_tokens(targeted[i][step_name]) if step_name in targeted[i] else step.output_ids
            for i, step in zip(index, steps, strict=True)
        ]
        inputs = [_read(model, step, traces[i], said[i], counts) for i, step in zip(index, steps, strict=True)]
        agent = step_name.partition("@")[0]
        prefix = () if through_prompts else _constant_prefix(model, steps)
        hidden = _hidden(model, agent, prefix, inputs, outputs)
        last = [number for number, i in enumerate(index) if step_name in targeted[i]]
        others = [number for number in range(len(index)) if number not in last]
        if last:
            found = _losses(
                model,
                agent,
                hidden.index_select(0, tensor_on(model.device, last)),
                [outputs[number] for number in last],
            )
            for number, each in zip(last, found, strict=True):
                losses[index[number]].append(each)
        if others:
            read = _straight_through(
                model,
                agent,
                hidden.index_select(0, tensor_on(model.device, others)),
                [outputs[number] for number in others],
            )
            for number, each in zip(others, read, strict=True):
                said[index[number]][step_name] = each
    return [torch.cat(found).mean() for found in losses], counts[0] / max(1, counts[1])


def _waves(traces: Sequence[Trace]) -> list[tuple[str, list[int]]]:
    """Every step after those that it reads, with the traces in which it ran."""
    above: dict[str, set[str]] = {}
    for trace in traces:
        for step in trace.steps:
            above.setdefault(step.name, set()).update(block.source for block in step.messages)
    ran = [{step.name for step in trace.steps} for trace in traces]
    return [
        (name, [index for index, names in enumerate(ran) if name in names])
        for name in TopologicalSorter(above).static_order()
    ]


def _read(
    model: LocalModel,
    step: Step,
    trace: Trace,
    said: Mapping[str, Embeddings],
    counts: list[int],
) -> Embeddings:
    """What a step reads: its soft prompt and the messages with gradients put in place.

    Args:
        model: that the step asked.
        step: the step.
        trace: that it is of.
        said: outputs by step, with gradients to their authors, `output hidden`.
        counts: message tokens that gradients pass, and all of them; added to.
    """
    embeddings = embeddings_of(model.model, tensor_on(model.device, step.input_ids)).detach()
    parts: list[Embeddings] = []
    place = 0
    for block in sorted(step.messages, key=lambda block: block.tokens):
        if block.source not in said:
            continue
        start, stop = block.tokens
        output = trace.step(block.source).output_ids
        matcher = SequenceMatcher(None, step.input_ids[start:stop], output, autojunk=False)
        counts[1] += stop - start
        for match in matcher.get_matching_blocks():
            parts += [embeddings[place : start + match.a], said[block.source][match.b : match.b + match.size]]
            place = start + match.a + match.size
            counts[0] += match.size
    found = torch.cat([*parts, embeddings[place:]])
    bound = model.bind(step.name, step.blocks, len(found))
    return found if bound is None else bound.apply(found)


def _constant_prefix(model: LocalModel, steps: Sequence[Step]) -> tuple[int, ...]:
    """The first tokens that an agent reads in all steps, before its soft prompt and all messages.

    None of a model that keeps other states than keys and values.
    """
    if not keeps_keys_and_values(model.model):
        return ()
    ends = [(soft_prompt_position(step.blocks), *(block.tokens[0] for block in step.messages)) for step in steps]
    # An input keeps a token of its own.
    heads = [step.input_ids[: min(*end, len(step.input_ids) - 1)] for step, end in zip(steps, ends, strict=True)]
    return tuple(same[0] for same in takewhile(lambda each: len(set(each)) == 1, zip(*heads, strict=False)))


def _hidden(
    model: LocalModel,
    agent: str,
    prefix: tuple[int, ...],
    inputs: Sequence[Embeddings],
    outputs: Sequence[Sequence[int]],
) -> Float[Tensor, "batch output hidden"]:
    """What the head reads of each output token of an agent, padded.

    Args:
        model: of the agent.
        agent: its name.
        prefix: the first tokens of all inputs that get no gradients.
        inputs: what it reads, the prefix included.
        outputs: tokens that it says or should say.
    """
    fed = [tensor_on(model.device, ids[:-1]) for ids in outputs]
    reads = [read[len(prefix) :] for read in inputs]
    rows = [torch.cat([read, embeddings_of(model.model, ids).detach()]) for read, ids in zip(reads, fed, strict=True)]
    value = model.adapters.values.get(agent)
    if value is not None and value.requires_grad:
        # The way back leads through all layers, whichever have adapters: sharded ones are gathered by all processes.
        rows = [row + 0 * value[:1].to(row.dtype) for row in rows]
    adapter = model.adapters.of(agent)
    cache, positions = passing_cache(model.model), None
    if prefix:
        bound = None if adapter is None else BoundParameters(agent=agent, position=0, adapter=adapter)
        cache, _ = frozen_prefix(model.model, [prefix] * len(rows), bound=[bound] * len(rows))
        positions = len(prefix) + torch.arange(max(map(len, rows)), device=model.device).expand(len(rows), -1)
    with active_adapters([adapter] * len(rows)):
        return hidden_at(
            model.model,
            consecutive_positions([len(read) - 1 for read in reads], list(map(len, outputs))),
            # What fills up stands behind: no token reads it, and no mask is needed.
            inputs_embeds=pad_sequence(rows, batch_first=True),
            position_ids=positions,
            past_key_values=cache,
            use_cache=False,
        )


def _losses(
    model: LocalModel, agent: str, hidden: Float[Tensor, "batch output hidden"], outputs: Sequence[Sequence[int]]
) -> list[OutputValues]:
    """-log p of the output tokens.

    Args:
        model: of the agent.
        agent: its name.
        hidden: what the head reads of each.
        outputs: the tokens.
    """
    picks = pad_sequence([tensor_on(model.device, ids) for ids in outputs], batch_first=True)

    def compute(positions: slice, logits: Float[Tensor, "batch output vocab"]) -> Float[Tensor, "batch output"]:
        return nn.functional.cross_entropy(logits.transpose(1, 2), picks[:, positions], reduction="none")

    # Other rows of the pass may have longer outputs.
    hidden = hidden[:, : picks.shape[1]]
    losses = over_chunks(model.model, hidden, compute, adapters=[model.adapters.of(agent)] * len(hidden))
    return [each[: len(ids)] for each, ids in zip(losses, outputs, strict=True)]


def _straight_through(
    model: LocalModel, agent: str, hidden: Float[Tensor, "batch output hidden"], outputs: Sequence[Sequence[int]]
) -> list[Embeddings]:
    """What others read of outputs: one-hot(y) + p - stop_gradient(p), times the embeddings.

    Args:
        model: of the agent.
        agent: its name.
        hidden: what the head reads of each token.
        outputs: the tokens y.
    """
    table: list[Float[Tensor, "vocab hidden"]] = []

    def compute(_: slice, logits: Float[Tensor, "batch output vocab"]) -> Float[Tensor, "batch output hidden"]:
        if not table:
            table.append(embeddings_of(model.model, torch.arange(logits.shape[2], device=logits.device)).detach())
        probabilities = logits.softmax(dim=-1)
        return (probabilities - probabilities.detach()).to(table[0].dtype) @ table[0]

    zeros = over_chunks(model.model, hidden, compute, adapters=[model.adapters.of(agent)] * len(hidden))
    picks = [embeddings_of(model.model, tensor_on(model.device, ids)).detach() for ids in outputs]
    return [each + zero[: len(each)] for each, zero in zip(picks, zeros, strict=True)]
