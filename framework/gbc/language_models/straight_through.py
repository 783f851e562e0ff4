"""A loss that flows through the whole graph: soft prompts, and messages that are straight-through (ours).

A recorded run is passed again, teacher-forced. Agents with soft prompts (Lester et al. 2021, arXiv 2104.08691) read
them after their prompts, and those with adapters are passed with theirs. A message is read as one-hot(y) + p -
stop_gradient(p) (Bengio et al. 2013, arXiv 1308.3432), p the probabilities with which its author said the tokens y: the
values are those of the run, and gradients reach the author. Tokens that the reader's tokenization merged with others
stay constants. Only agents of one model are connected so. An output that has a target is one of these to its other
readers, too: a constant.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from graphlib import TopologicalSorter

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from framework.core.errors import ConfigError, DataError
from framework.gbc.graph.trace import Step, Trace
from framework.gbc.language_models.agent_parameters import ParametersByAgent
from framework.gbc.language_models.local import LocalModel
from framework.gbc.language_models.logits import logits_at, places
from framework.gbc.language_models.lora import reading


@dataclass(frozen=True, kw_only=True)
class SoftLoss:
    """The loss of a batch of traces.

    Attributes:
        value: mean over the traces of the mean over all tokens of their targets of -log p; natural logarithm. So an
            agent that should say much weighs more than one that should say that there is nothing.
        flowing: share of the message tokens between agents of the model that gradients pass through.
    """

    value: Float[Tensor, ""]
    flowing: float


@dataclass(frozen=True, kw_only=True)
class PromptGradient:
    """The gradient of the loss with respect to the prompt of a step, by token.

    Attributes:
        step: the step.
        node: its agent.
        l1: sum of magnitudes over the embedding's values, `token`.
        gradient_input: sum of gradient times embedding, `token`.
    """

    step: str
    node: str
    l1: Float[Tensor, "token"]
    gradient_input: Float[Tensor, "token"]


def make_soft_prompts(model: LocalModel, agents: Iterable[str], *, num_tokens: int, seed: int = 0) -> nn.ParameterDict:
    """Soft prompts in float32, `token hidden` by agent; they begin as embeddings of tokens at random.

    Raises:
        ConfigError: no tokens.
    """
    if num_tokens < 1:
        raise ConfigError(f"soft prompts of {num_tokens} tokens", hint="use 1 or more")
    generator = torch.Generator().manual_seed(seed)
    vocabulary = model.model.get_input_embeddings().num_embeddings
    assert isinstance(vocabulary, int)
    prompts = ParametersByAgent()
    for agent in agents:
        ids = torch.randint(vocabulary, (num_tokens,), generator=generator).to(model.device)
        prompts[agent] = nn.Parameter(model.model.get_input_embeddings()(ids).detach().float().clone())
    return prompts


Target = str | Mapping[str, str]
"""What should be said: by the one output, or by several, by their nodes."""


def soft_loss(
    model: LocalModel,
    name: str,
    traces: Sequence[Trace],
    targets: Sequence[Target],
    weights: Sequence[float] | None = None,
) -> SoftLoss:
    """How unlikely the targets are as the outputs of recorded runs; gradients reach what steers the model.

    Args:
        model: with its soft prompts, gates and adapters, those with which the traces were made.
        name: of the model in the traces: agents of others are constants.
        traces: runs that did not fail.
        targets: the right output of each: of the one output, by an agent of the model, or of several; of these, those
            that ran and are of the model count.
        weights: of the traces, in place of their mean.

    Raises:
        DataError: a trace without such an output.
    """
    losses, flowing = _pass(model, name, traces, targets, None)
    whole = torch.stack(losses)
    value = whole.mean() if weights is None else (whole * torch.tensor(weights, device=whole.device)).sum()
    return SoftLoss(value=value, flowing=flowing)


def trained_outputs(name: str, trace: Trace, target: Target) -> dict[str, str]:
    """The outputs of a trace that are of the model and have a target, by step; empty if there are none."""
    if isinstance(target, str):
        wanted = {trace.outputs[0]: target} if len(trace.outputs) == 1 else {}
    else:
        nodes = {step: trace.step(step).node for step in trace.outputs}
        wanted = {step: target[node] for step, node in nodes.items() if node in target}
    steps = {step: trace.step(step) for step in wanted}
    return {step: wanted[step] for step, ran in steps.items() if ran.model == name and ran.input_ids}


def prompt_gradients(
    model: LocalModel, name: str, traces: Sequence[Trace], targets: Sequence[Target]
) -> list[tuple[PromptGradient, ...]]:
    """The gradient of -log p of the targets with respect to every agent's prompt, through all messages.

    Credit that needs no shares and no walk: the exact gradient of the straight-through loss, in one backward pass. The
    arguments and the errors are those of `soft_loss`.
    """
    deltas: list[dict[str, Tensor]] = [{} for _ in traces]
    losses, _ = _pass(model, name, traces, targets, deltas)
    leaves = [delta for found in deltas for delta in found.values()]
    # Each trace's deltas touch its own loss alone.
    gradients = iter(torch.autograd.grad(torch.stack(losses).sum(), leaves, allow_unused=True, materialize_grads=True))
    embed = model.model.get_input_embeddings()
    results = []
    for trace, found in zip(traces, deltas, strict=True):
        records = []
        for step_name in found:
            step, gradient = trace.step(step_name), next(gradients).float()
            (prompt,) = (block for block in step.blocks if block.kind == "prompt")
            ids = torch.tensor(step.input_ids[slice(*prompt.tokens)], dtype=torch.long, device=model.device)
            product = (gradient * embed(ids).detach().float()).sum(dim=-1)
            records.append(
                PromptGradient(
                    step=step_name,
                    node=step.node,
                    l1=gradient.abs().sum(dim=-1).cpu(),
                    gradient_input=product.cpu(),
                )
            )
        results.append(tuple(records))
    return results


def _pass(
    model: LocalModel,
    name: str,
    traces: Sequence[Trace],
    targets: Sequence[Target],
    deltas: list[dict[str, Tensor]] | None,
) -> tuple[list[Tensor], float]:
    """The loss of each trace and the share of message tokens that gradients pass; fills `deltas` with leaves."""
    wanted = [trained_outputs(name, trace, target) for trace, target in zip(traces, targets, strict=True)]
    for trace, found in zip(traces, wanted, strict=True):
        if not found:
            hint = f"use graphs with an output of model {name!r}, and a target for it"
            raise DataError(f"task {trace.id!r} has no output whose gradient is known", hint=hint)
    said: list[dict[str, Tensor]] = [{} for _ in traces]
    counts = [0, 0]
    losses: list[list[Tensor]] = [[] for _ in traces]
    for step_name, waiting in _waves(traces):
        # An output that was given, in some traces, has no tokens.
        index = [i for i in waiting if traces[i].step(step_name).model == name and traces[i].step(step_name).input_ids]
        if not index:
            continue
        steps = [traces[i].step(step_name) for i in index]
        outputs = [
            _target_ids(model, wanted[i][step_name]) if step_name in wanted[i] else step.output_ids
            for i, step in zip(index, steps, strict=True)
        ]
        inputs = [
            _read(model, step, traces[i], said[i], counts, None if deltas is None else deltas[i])
            for i, step in zip(index, steps, strict=True)
        ]
        logits = _logits(model, step_name.partition("@")[0], inputs, outputs)
        for i, chosen, ids in zip(index, logits, outputs, strict=True):
            picks = torch.tensor(ids, device=model.device)
            if step_name in wanted[i]:
                losses[i].append(nn.functional.cross_entropy(chosen.float(), picks, reduction="none"))
            else:
                said[i][step_name] = _straight_through(model, chosen, picks)
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


def _target_ids(model: LocalModel, text: str) -> tuple[int, ...]:
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert isinstance(ids, list)
    end = model.tokenizer.eos_token_id
    return (*ids, *([end] if isinstance(end, int) else []))


def _read(
    model: LocalModel,
    step: Step,
    trace: Trace,
    said: Mapping[str, Tensor],
    counts: list[int],
    deltas: dict[str, Tensor] | None,
) -> Tensor:
    """What a step reads, `token hidden`: its soft prompt and the messages with gradients put in place."""
    embeddings = model.model.get_input_embeddings()(torch.tensor(step.input_ids, device=model.device)).detach()
    prompts = [block.tokens for block in step.blocks if block.kind == "prompt" and block.tokens[0] < block.tokens[1]]
    if deltas is not None and prompts:
        start, stop = prompts[0]
        deltas[step.name] = torch.zeros_like(embeddings[start:stop], requires_grad=True)
        embeddings = torch.cat([embeddings[:start], embeddings[start:stop] + deltas[step.name], embeddings[stop:]])
    parts, place = [], 0
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
    reader = model.reader(step.name, step.blocks, len(found))
    return found if reader is None else reader.read(found)


def _logits(model: LocalModel, agent: str, inputs: Sequence[Tensor], outputs: Sequence[Sequence[int]]) -> list[Tensor]:
    """Logits of the output tokens of an agent, `output vocabulary` each."""
    embed = model.model.get_input_embeddings()
    rows = [
        torch.cat([read, embed(torch.tensor(list(ids[:-1]), dtype=torch.long, device=model.device)).detach()])
        for read, ids in zip(inputs, outputs, strict=True)
    ]
    value = model.adapters.values.get(agent)
    if value is not None and value.requires_grad:
        # The way back leads through all layers, whichever have adapters: sharded ones are gathered by all processes.
        rows = [row + 0 * value[:1].to(row.dtype) for row in rows]
    mask = pad_sequence([torch.ones(len(row), dtype=torch.long, device=model.device) for row in rows], batch_first=True)
    counts = list(map(len, outputs))
    with reading([model.adapters.of(agent)] * len(rows)):
        logits = logits_at(
            model.model,
            places([len(read) - 1 for read in inputs], counts),
            inputs_embeds=pad_sequence(rows, batch_first=True),
            attention_mask=mask,
            use_cache=False,
        )
    return [each[:count] for each, count in zip(logits, counts, strict=True)]


def _straight_through(
    model: LocalModel, logits: Float[Tensor, "output vocabulary"], picks: Tensor
) -> Float[Tensor, "output hidden"]:
    embed = model.model.get_input_embeddings()
    probabilities = logits.float().softmax(dim=-1)
    # Every token's embedding as the model reads it: Gemma scales them.
    table = embed(torch.arange(logits.shape[1], device=logits.device)).detach()
    flow = (probabilities - probabilities.detach()).to(table.dtype) @ table
    return embed(picks).detach() + flow
