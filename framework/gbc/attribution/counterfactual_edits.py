"""Connections by counterfactual edits: which input token, had it been another, would have corrected an error (ours).

The size of a gradient says what an output depends on, and a wrong word depends on many right ones. A counterfactual
edit asks for a cause: from the wrong tokens of the outputs and what should stand there, the few first-order edits of
the input are chosen that correct most of them and harm the right tokens least. An edit of the agent's own prompt ends
the chain. An edit of a message is what its author should have said there, and the author is asked next, down to the
inputs. What users say is taken as given, and what no edit corrects is the agent's own.

What could stand in a message are the tokens that its author held likeliest there and those that are missing downstream,
and in a prompt the tokens of all prompts.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from framework.gbc.attribution.credit_propagation import block_shift, loss_shares, output_units, propagate_to_source
from framework.gbc.attribution.edge_weights import (
    Connection,
    StepConnections,
    estimates_of,
    estimator_of,
    model_of,
    normalise,
    step_connections,
)
from framework.gbc.attribution.estimators import Estimates
from framework.gbc.attribution.first_order_edits import RUNNER_UP, EditCandidates, FirstOrderEdits, first_order_edits
from framework.gbc.attribution.options import ConnectionOptions, CounterfactualEditOptions
from framework.gbc.attribution.token_gradients import likeliest_tokens
from framework.gbc.attribution.tool_replay import Target, tool_replay_connections
from framework.gbc.execution.teacher_forcing import TokenRow, first_message
from framework.gbc.graph.spec import Graph, Tool
from framework.gbc.graph.trace import Block, Span, Step, Trace
from framework.gbc.graph.verbal_loss import VerbalLoss
from framework.gbc.language_models.interface import LanguageModel
from framework.gbc.language_models.local import LocalModel
from framework.gbc.shapes import Alternatives, Credit, ints

_LEAST = 0.05
"""Of a wrong token: an edit that corrects less does not explain it."""
_MOST_BROKEN = 3.0
"""Tokens: what first order says of an edit that breaks more is beyond its reach."""


@dataclass
class CreditState:
    """What is known of a trace so far, from its end on.

    Attributes:
        trace: the trace.
        units: of every step's output.
        credits: of the units.
        targets: what should stand in a span of a step's output, with its weight in units of the loss.
        connections: of the steps that are done.
    """

    trace: Trace
    units: dict[str, tuple[Span, ...]]
    credits: dict[str, Credit]
    targets: dict[str, dict[Target, float]] = field(default_factory=dict[str, dict[Target, float]])
    connections: dict[str, tuple[Connection, ...]] = field(default_factory=dict[str, tuple[Connection, ...]])

    @classmethod
    def of(cls, trace: Trace, loss: VerbalLoss) -> "CreditState":
        """The credit of the loss at the outputs, and what should stand there."""
        units = {step.name: output_units(step) for step in trace.steps}
        credits = {name: torch.zeros(len(spans), dtype=torch.float64) for name, spans in units.items()}
        for name, shares in loss_shares(trace, loss, units).items():
            credits[name] += loss.value * shares
        state = cls(trace=trace, units=units, credits=credits)
        total = sum(place.weight for place in loss.places) or 1.0
        for place in loss.places:
            if place.expected:
                weight = loss.value * place.weight / total
                state.add_target(place.step, (place.start, place.stop, place.expected), weight)
        return state

    def add_target(self, step: str, target: Target, weight: float) -> None:
        """Adds what should stand in a span of a step's output.

        Args:
            step: the step.
            target: start and stop in its output, and the text.
            weight: in units of the loss; that of equal targets adds up.
        """
        targets = self.targets.setdefault(step, {})
        targets[target] = targets.get(target, 0.0) + weight

    def close(self, step: Step, connections: tuple[Connection, ...]) -> None:
        """Hands a step's credit on to the authors of what it read."""
        self.connections[step.name] = connections
        credit = self.credits[step.name]
        for connection in connections:
            if connection.kind in ("message", "control"):
                source = self.trace.step(connection.source)
                passed = connection.propagate(credit)
                units = self.units[source.name]
                self.credits[source.name] += propagate_to_source(passed, connection, step, source, units)


def connections_by_edits(
    traces: Sequence[Trace],
    graph: Graph,
    models: Mapping[str, LanguageModel],
    losses: Sequence[VerbalLoss],
    options: CounterfactualEditOptions,
    connections: ConnectionOptions = ConnectionOptions(),
) -> list[StepConnections]:
    """The connections of every step of traces; from the ends on, the answers of a model at one depth in one batch.

    Args:
        traces: runs of `graph`, or of one with the same nodes; recorded ones will do.
        graph: for its tools and estimators.
        models: those whose gradients or answers are needed.
        losses: of each trace, with places; what is wrong is corrected, what should stand there if it is known.
        options: how edits are looked for.
        connections: for the estimators of steps without gradients.

    Raises:
        ConfigError: what `compute_connections` finds.
    """
    states = [CreditState.of(trace, loss) for trace, loss in zip(traces, losses, strict=True)]
    estimates = estimates_of(traces, graph, models, [loss.value for loss in losses], connections)
    likely = _likely_tokens(states, graph, models, options)
    for level in _levels(traces):
        asked: dict[str, list[tuple[int, Step]]] = defaultdict(list)
        for index, step in level:
            if estimator_of(graph, step) == "gradient" and states[index].credits[step.name].sum() > 0:
                asked[step.model or ""].append((index, step))
            else:
                states[index].close(step, _without_gradients(states[index], graph, step, estimates, index, connections))
        for steps in asked.values():
            _explain(states, model_of(models, steps[0][1]), steps, likely, options)
    return [state.connections for state in states]


def _levels(traces: Sequence[Trace]) -> list[list[tuple[int, Step]]]:
    """Steps by their depth: every step after all that read it."""
    levels: dict[int, list[tuple[int, Step]]] = defaultdict(list)
    for index, trace in enumerate(traces):
        depth: dict[str, int] = defaultdict(int)
        for step in reversed(trace.steps):
            levels[depth[step.name]].append((index, step))
            for source in (*(block.source for block in step.messages), *step.controls):
                depth[source] = max(depth[source], depth[step.name] + 1)
    return [levels[depth] for depth in sorted(levels)]


def _likely_tokens(
    states: Sequence[CreditState], graph: Graph, models: Mapping[str, LanguageModel], options: CounterfactualEditOptions
) -> dict[tuple[int, str], Alternatives]:
    """For every answer the tokens that could have been said in each place."""
    asked: dict[str, list[tuple[tuple[int, str], TokenRow]]] = defaultdict(list)
    languages: dict[str, LocalModel] = {}
    for index, state in enumerate(states):
        for step in state.trace.steps:
            if estimator_of(graph, step) == "gradient" and step.output_ids:
                name = step.model or ""
                languages[name] = model_of(models, step)
                row = TokenRow.of(languages[name], step, prefix=first_message(step))
                asked[name].append(((index, step.name), row))
    found: dict[tuple[int, str], Alternatives] = {}
    for name, rows in asked.items():
        each = [row for _, row in rows]
        tokens = likeliest_tokens(
            languages[name].model, each, count=options.alternatives, max_tokens=options.max_tokens
        )
        found.update(zip((key for key, _ in rows), tokens, strict=True))
    return found


def _without_gradients(
    state: CreditState, graph: Graph, step: Step, estimates: Estimates, index: int, options: ConnectionOptions
) -> tuple[Connection, ...]:
    estimator, node = estimator_of(graph, step), graph.nodes[step.node]
    if isinstance(node, Tool) and node.estimator == "tool_replay" and step.messages:
        return tool_replay_connections(state.trace, step, node, state.targets)
    if estimator == "gradient":
        # Nothing is wrong here.
        return tuple(Connection.without_credit(block) for block in step.blocks)
    return step_connections(step, estimator, None, estimates.get((index, step.name), {}), options)


def _explain(
    states: Sequence[CreditState],
    model: LocalModel,
    steps: Sequence[tuple[int, Step]],
    likely: Mapping[tuple[int, str], Alternatives],
    options: CounterfactualEditOptions,
) -> None:
    """Finds the edits of answers' inputs, hands their credit on, and tells the authors what they should have said."""
    asked: list[tuple[CreditState, Step, EditCandidates, list[float]]] = []
    for index, step in steps:
        state = states[index]
        targets = _token_targets(state, model, step)[: options.max_targets]
        wrong = {place for place, _, _ in targets}
        kept = [place for place, (start, stop) in enumerate(step.output_spans) if place not in wrong and start < stop]
        edits = _possible_edits(state.trace, model, step, [token for _, token, _ in targets], likely, index)
        if not edits or not targets:
            state.close(step, tuple(Connection.without_credit(block) for block in step.blocks))
            continue
        corrected = list(step.output_ids)
        for place, token, _ in reversed(targets):
            corrected[place] = step.output_ids[place] if token == RUNNER_UP else token
        row = EditCandidates(
            row=replace(TokenRow.of(model, step, prefix=min(place for place, _ in edits)), output_ids=tuple(corrected)),
            targets=tuple((place, step.output_ids[place], token) for place, token, _ in targets),
            kept=tuple(kept) if options.keep else (),
            edits=edits,
        )
        asked.append((state, step, row, [weight for _, _, weight in targets]))
    found = first_order_edits(model.model, [row for _, _, row, _ in asked], max_tokens=options.max_tokens)
    for (state, step, row, weights), effects in zip(asked, found, strict=True):
        taken = choose_edits(effects, torch.tensor(weights, dtype=torch.float64), options)
        _pass_targets(state, model, step, row, taken)
        state.close(step, _connections(step, row, taken))


def _token_targets(state: CreditState, model: LocalModel, step: Step) -> list[tuple[int, int, float]]:
    """Output tokens with credit, what should stand there, and the credit; the most first."""
    found: dict[tuple[int, int], float] = defaultdict(float)
    known = torch.zeros(len(step.output_ids), dtype=torch.bool)
    for target, weight in state.targets.get(step.name, {}).items():
        start, stop, _ = target
        place = _first_difference(model, step, target)
        if place is not None:
            found[place] += weight
            known |= torch.tensor([start < end and begin < stop for begin, end in step.output_spans])
    credit = state.credits[step.name]
    for place in ints(((credit > 0) & ~known).nonzero()[:, 0]):
        found[place, RUNNER_UP] += credit[place].item()
    return sorted(((place, token, weight) for (place, token), weight in found.items()), key=lambda each: -each[2])


def _first_difference(model: LocalModel, step: Step, target: Target) -> tuple[int, int] | None:
    """The first output token that is another once the target is met, and that other one; None if there is none."""
    start, stop, text = target
    corrected = step.output[:start] + text + step.output[stop:]
    ids = model.plain_tokens(corrected)
    pairs = enumerate(zip(step.output_ids, ids, strict=False))
    place = next((number for number, (said, other) in pairs if said != other), None)
    return None if place is None else (place, ids[place])


def _possible_edits(
    trace: Trace,
    model: LocalModel,
    step: Step,
    tokens: Sequence[int],
    likely: Mapping[tuple[int, str], Alternatives],
    index: int,
) -> tuple[tuple[int, int], ...]:
    missing = {token for token in tokens if token != RUNNER_UP}
    special = set(model.tokenizer.all_special_ids)
    edits: list[tuple[int, int]] = []
    for block in step.blocks:
        if block.kind == "message" and trace.step(block.source).kind == "user":
            continue
        said = _said_tokens(trace, block, step) if block.kind == "message" else {}
        anywhere = _prompt_tokens(trace, step.model) if block.kind == "prompt" else missing
        for place in range(*block.tokens):
            could = anywhere
            if place in said and (index, block.source) in likely:
                could = missing | set(ints(likely[index, block.source][said[place]]))
            edits += [(place, token) for token in sorted(could - special - {step.input_ids[place]})]
    return tuple(edits)


def _prompt_tokens(trace: Trace, model: str | None) -> set[int]:
    """Tokens of all prompts that a model has in a trace."""
    return {
        token
        for step in trace.steps
        if step.model == model
        for block in step.blocks
        if block.kind == "prompt"
        for token in step.input_ids[slice(*block.tokens)]
    }


def _said_tokens(trace: Trace, block: Block, step: Step) -> dict[int, int]:
    """For tokens of a block that are tokens of its author's output, their numbers in it."""
    source = trace.step(block.source)
    shift = block_shift(block, source)
    if shift is None or source.model != step.model:
        return {}
    ends = {stop: number for number, (start, stop) in enumerate(source.output_spans) if start < stop}
    found: dict[int, int] = {}
    for place in range(*block.tokens):
        number = ends.get(step.input_spans[place][1] + shift)
        if number is not None and source.output_ids[number] == step.input_ids[place]:
            found[place] = number
    return found


def choose_edits(
    effects: FirstOrderEdits, weights: Float[Tensor, "target"], options: CounterfactualEditOptions
) -> Float[Tensor, "target edit"]:
    """How much of each wrong token's credit each edit explains; few edits, one after another the best (ours).

    A wrong token is corrected in full by the edit under which its margin falls most, and by others in proportion. What
    an edit harms is the part of right tokens' margins that it takes, up to a bound. Both are sums of tokens, wrong ones
    weighted by their credit.

    Args:
        effects: of the edits on the wrong tokens' margins.
        weights: credit of the wrong tokens.
        options: how many edits, and what counts against them.
    """
    drops = effects.drops.double().clamp(min=0)
    largest = drops.amax(dim=1, keepdim=True)
    gains = torch.where(largest > 0, drops / torch.where(largest > 0, largest, 1), 0)
    harm = effects.harms.double().clamp(0, _MOST_BROKEN)
    # What comes out right once the words before it are has no cause of its own.
    caused = effects.margins.double() > 0
    weights = torch.where(caused, weights, 0) if caused.any() else weights
    scale = weights[weights > 0].mean()
    left = weights.double() / scale
    taken = torch.zeros_like(drops)
    for _ in range(options.max_edits):
        value = torch.where(taken.any(dim=0), -torch.inf, left @ gains - options.keep * harm)
        best = int(value.argmax())
        if value[best] <= _LEAST:
            break
        part = left * gains[:, best]
        taken[:, best] += part
        left = left - part
    return taken * scale


def _pass_targets(
    state: CreditState, model: LocalModel, step: Step, row: EditCandidates, taken: Float[Tensor, "target edit"]
) -> None:
    """Tells the authors of messages what they should have said."""
    for edit in ints(taken.sum(dim=0).nonzero()[:, 0]):
        place, token = row.edits[edit]
        block = _block_of(step, place)
        if block.kind == "prompt":
            continue
        shift = block_shift(block, state.trace.step(block.source))
        if shift is None:
            continue
        start, stop = step.input_spans[place]
        text = step.input_text[start:stop]
        start += len(text) - len(text.lstrip())
        target = (start + shift, stop + shift, model.decode([token]).strip())
        state.add_target(block.source, target, taken[:, edit].sum().item())


def _block_of(step: Step, place: int) -> Block:
    return next(block for block in step.blocks if block.tokens[0] <= place < block.tokens[1])


def _connections(step: Step, row: EditCandidates, taken: Float[Tensor, "target edit"]) -> tuple[Connection, ...]:
    """Shares by what edits explain; output tokens that nobody asked about have the mean of the others."""
    by_token = torch.zeros(len(step.output_ids), len(step.input_ids), dtype=torch.float64)
    for number, (place, _, _) in enumerate(row.targets):
        for edit in ints(taken[number].nonzero()[:, 0]):
            by_token[place, row.edits[edit][0]] += taken[number, edit]
    if not by_token.any():
        for block in step.blocks:
            by_token[:, slice(*block.tokens)] = float(block.kind == "prompt")
    total = by_token.sum(dim=1, keepdim=True)
    mean = by_token.sum(dim=0, keepdim=True) / by_token.sum().clamp(min=torch.finfo(torch.float64).tiny)
    shares = torch.where(total > 0, normalise(by_token), mean)
    return tuple(_connection(block, shares[:, slice(*block.tokens)]) for block in step.blocks)


def _connection(block: Block, shares: Float[Tensor, "row token"]) -> Connection:
    share = shares.sum(dim=1)
    return Connection(
        source=block.source,
        kind=block.kind,
        estimator="gradient",
        block=block,
        weight=share,
        share=share,
        tokens=normalise(shares),
    )
