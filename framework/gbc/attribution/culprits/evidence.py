"""Evidence about the culprit of a failed run, for models that nobody trained for it (ours).

What is wrong in the output is followed backwards (`error_paths.py`), and every step is asked what it should have said,
its target, as far as that can be told without its prompt (`targets.py`). Then, of each node:

- what became of the values at it: it made the wrong one up, it had read the expected one and lost it or did not pass it
  on, nothing that it had read told it, or all that it said is right elsewhere;
- the log-odds of its target against what it said, by the same language model that reads what the node read, but with
  the agent's role in place of its prompt. A prompt with a fault makes an agent say what its task and its input do not
  imply; an agent that only passed an error on says what they imply, and then whoever fed it, or sent it, is suspected.

Where nobody is known to have owed a value, those before whoever said it first are supposed to have, and whoever decided
a branch to have owed another branch.

No agent runs again, and no prompt is read: the passes are over roles, messages and answers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from framework.gbc.attribution.culprits.error_paths import ErrorPath, heard, read_by, sources
from framework.gbc.attribution.culprits.shared_prompts import token_fit
from framework.gbc.attribution.culprits.targets import Told, find_targets
from framework.gbc.execution.runner import build_request
from framework.gbc.graph.spec import Agent, Graph
from framework.gbc.graph.trace import Step, Trace
from framework.gbc.graph.verbal_loss import VerbalLoss, parse_fields
from framework.gbc.language_models.interface import Request
from framework.gbc.language_models.local import LocalModel

_MOST_ODDS = 10.0
"""In nats: beyond it, one token more or less says nothing new."""


def _tens(odds: float) -> float:
    """Log-odds in tens of nats, at most 1 and at least -1."""
    return max(-_MOST_ODDS, min(_MOST_ODDS, odds)) / _MOST_ODDS


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What speaks for and against a node, over its steps.

    Attributes:
        made_up: share of the wrong values that it said, and nothing that it had read.
        lost: share that it said, or owed, though what should stand there was before it.
        left_out: share that are missing in the output though it, who said that, had read them.
        withheld: share that it had read as somebody else's message and did not pass on, so that they got no further.
        lacked: share that it was to take from a message by name, or to put out, and nothing that it had read told of:
            neither the expected value nor the wrong one.
        right: all that it said is the right value of another field.
        explained: a tool that says its target once its input is another: its input is at fault.
        is_output: whether it said the system's output.
        sent: how much whoever decided that it runs should have decided otherwise, in tens of nats and at most 1.
        feeds: how much what a reader of it said fits to what it read, in tens of nats and at most 1, though the reader
            should have said something else: then it is the reader's input that is at fault.
        supposed: the target is only supposed.
        target: what it should have said, where that can be told.
        log_odds: of the target against what it said, in nats; None where there is no target, and for tools.
    """

    made_up: float = 0.0
    lost: float = 0.0
    left_out: float = 0.0
    withheld: float = 0.0
    lacked: float = 0.0
    right: bool = False
    explained: bool = False
    is_output: bool = False
    sent: float = 0.0
    feeds: float = 0.0
    supposed: bool = False
    target: str | None = None
    log_odds: float | None = None

    @property
    def features(self) -> dict[str, float]:
        """Numbers for a linear score."""
        odds = _tens(self.log_odds or 0.0)
        return {
            "made_up": self.made_up,
            "lost": self.lost,
            "left_out": self.left_out,
            "withheld": self.withheld,
            "lacked": self.lacked,
            "right": float(self.right),
            "explained": float(self.explained),
            "is_output": float(self.is_output),
            "sent": self.sent,
            "feeds": self.feeds,
            "has_target": float(self.target is not None and not self.supposed),
            "log_odds": 0.0 if self.supposed else odds,
            "supposed_odds": odds if self.supposed else 0.0,
        }


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """The evidence of one run.

    Attributes:
        nodes: by the name of each node that ran, user turns left out.
        passes: over roles, messages and answers.
        tokens: read in them.
    """

    nodes: dict[str, Evidence]
    passes: int
    tokens: int

    @property
    def features(self) -> dict[str, dict[str, float]]:
        """Of each node."""
        return {name: evidence.features for name, evidence in self.nodes.items()}


def gather_evidence(
    traces: Sequence[Trace], graph: Graph, models: Mapping[str, object], losses: Sequence[VerbalLoss]
) -> list[Gathered]:
    """The evidence of failed runs, from one batch of passes.

    Args:
        traces: runs that did not fail.
        graph: that made them.
        models: by name; in place of those on a server the first local one reads, and without one there are no log-odds.
        losses: of the traces; how much they tell of what was expected decides how much can be found.
    """
    reader = next((model for model in models.values() if isinstance(model, LocalModel)), None)
    found: list[dict[str, Evidence]] = []
    asked: list[_Asked] = []
    told_of: list[Told] = []
    for index, (trace, loss) in enumerate(zip(traces, losses, strict=True)):
        told = find_targets(graph, trace, loss)
        told_of.append(told)
        nodes: dict[str, Evidence] = {}
        for step in trace.steps:
            if step.kind == "user":
                continue
            evidence = _provenance(trace, step, told, nodes.get(step.node, Evidence()))
            nodes[step.node] = replace(
                evidence,
                target=told.targets.get(step.name, evidence.target),
                explained=evidence.explained or step.name in told.explained,
            )
            model = models.get(step.model or "")
            model = model if isinstance(model, LocalModel) else reader
            if model is not None:
                asked += _questions(graph, trace, step, told, run=index, model=model)
        found.append(nodes)
    passes, tokens = [0] * len(traces), [0] * len(traces)
    for each, (odds, count) in zip(asked, _log_odds(asked), strict=True):
        nodes, node = found[each.run], each.step.node
        passes[each.run], tokens[each.run] = passes[each.run] + 2, tokens[each.run] + count
        before = nodes[node]
        if each.supposed and before.target is not None and not before.supposed:
            # A turn of a node that owes something else in another.
            continue
        if each.supposed:
            # Of several suppositions, the likeliest.
            if before.log_odds is None or odds > before.log_odds:
                nodes[node] = replace(before, supposed=True, target=each.target, log_odds=odds)
        else:
            nodes[node] = replace(before, log_odds=odds)
    for trace, told, nodes in zip(traces, told_of, found, strict=True):
        _find_feeders(trace, told.paths, nodes)
        _find_sent(trace, nodes)
    return [Gathered(nodes=n, passes=p, tokens=t) for n, p, t in zip(found, passes, tokens, strict=True)]


def _find_feeders(trace: Trace, paths: Sequence[ErrorPath], nodes: dict[str, Evidence]) -> None:
    """Marks whom a node had read that was right to say what it said, given its input.

    A message that told what was expected misled nobody.
    """
    for step in trace.steps:
        reader = nodes.get(step.node)
        if reader is None or reader.is_output or reader.supposed or reader.log_odds is None or reader.log_odds >= 0:
            continue
        fits = _tens(-reader.log_odds)
        mine = [path.wrong for path in paths if step.name in path.sayers | path.owing]
        for source in read_by(trace, step):
            if source.node in nodes and not any(wrong.told_in(source.output) for wrong in mine):
                nodes[source.node] = replace(nodes[source.node], feeds=max(nodes[source.node].feeds, fits))


def _find_sent(trace: Trace, nodes: dict[str, Evidence]) -> None:
    """Marks nodes that ran because of a decision that should have been another."""
    for step in trace.steps:
        for decider in (trace.step(name).node for name in step.controls):
            if step.node in nodes and decider in nodes and decider != step.node:
                odds = max(0.0, _tens(nodes[decider].log_odds or 0.0))
                nodes[step.node] = replace(nodes[step.node], sent=max(nodes[step.node].sent, odds))


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A target, perhaps only supposed, and what was said in its place; a model weighs them without the prompt."""

    run: int
    step: Step
    model: LocalModel
    request: Request
    said: str
    target: str
    supposed: bool


def _questions(graph: Graph, trace: Trace, step: Step, told: Told, *, run: int, model: LocalModel) -> list[_Asked]:
    """What is asked about a step of an agent: its target, or else what it could have owed.

    Args:
        graph: that made the run.
        trace: the run.
        step: of it.
        told: what steps should have said.
        run: number of the run.
        model: that is asked.
    """
    agent = graph.nodes[step.node]
    if not isinstance(agent, Agent):
        return []
    known, end = step.name in told.targets, agent.stop[0] if agent.stop else ""
    targets = [told.targets[step.name]] if known else _suppositions(graph, trace, step, told)
    return [
        _Asked(
            run=run,
            step=step,
            model=model,
            request=_without_prompt(trace, agent, step),
            said=step.output + end,
            target=text + end,
            supposed=not known,
        )
        for text in targets
    ]


def _provenance(trace: Trace, step: Step, told: Told, before: Evidence) -> Evidence:
    """The evidence of a node with one step more."""
    read = read_by(trace, step)
    is_output = step.name in trace.outputs
    made_up = lost = left_out = withheld = lacked = 0
    for path in told.paths:
        wrong = path.wrong
        named, others = sources(trace, step, wrong)
        knew = any(wrong.told_in(source.output) for source in named or others)
        again = bool(wrong.said) and any(wrong.said_in(source.output) for source in named or others)
        lacked += not knew and not again and (is_output or (step.name in path.sayers and bool(named)))
        if step.name in path.sayers:
            lost += knew
            made_up += not again
        elif step.name in path.owing:
            lost += knew
        elif not wrong.said and knew and is_output:
            left_out += 1
        elif not path.told and not wrong.told_in(step.output):
            withheld += any(source.kind != "user" and wrong.told_in(source.output) for source in read)
    share = 1 / max(1, told.num_wrong)
    return replace(
        before,
        made_up=before.made_up + made_up * share,
        lost=before.lost + lost * share,
        left_out=before.left_out + left_out * share,
        withheld=before.withheld + withheld * share,
        lacked=before.lacked + lacked * share,
        is_output=before.is_output or is_output,
        right=step.output.strip() in told.right,
    )


def _without_prompt(trace: Trace, agent: Agent, step: Step) -> Request:
    """What the agent would have been asked with its role in place of its prompt."""
    role = agent.role or "answers"
    neutral = replace(agent, prompt=f"{role[0].upper()}{role[1:]}.")
    seen = {trace.step(block.source).node: (block.source, trace.step(block.source).output) for block in step.messages}
    return build_request(neutral, step.name, id=trace.id, seed=0, seen=seen)


def _suppositions(graph: Graph, trace: Trace, step: Step, told: Told) -> list[str]:
    """What a step without a target could have owed: values that are in no message, and other branches."""
    if step.kind != "agent" or step.name in trace.outputs:
        return []
    start = step.output[: len(step.output) - len(step.output.lstrip())]
    messages = [other.output for other in trace.steps if other.name not in trace.outputs and other.kind != "user"]
    owed = [
        path.wrong.expected
        for path in told.paths[: told.num_wrong]
        if path.wrong.expected
        and step.name in _could_have_told(trace, path)
        and not any(path.wrong.told_in(text) for text in messages)
    ]
    nodes = (node for node in (*graph.agents, *graph.tools) if node.when is not None)
    conditions = [node.when for node in nodes if node.when is not None and node.when.source == step.node]
    branches = [
        condition.pattern
        for condition in conditions
        if not condition.negate and condition.holds(condition.pattern) and not condition.holds(step.output)
    ]
    # A value alone stands for no message of several fields.
    supposed = branches if parse_fields(step.output) else [*owed, *branches]
    return [start + text for text in dict.fromkeys(supposed)]


def _could_have_told(trace: Trace, path: ErrorPath) -> list[str]:
    """Whom those had read who said a value first, or lack it; where a step is known to have owed it, nobody.

    What a tool made, nobody before it could have said.
    """
    firsts = [
        name
        for name in path.sayers or trace.outputs
        if not any(source.name in path.sayers for source in read_by(trace, trace.step(name)))
    ]
    if path.owing or any(trace.step(name).kind == "tool" for name in firsts):
        return []
    return heard(trace, firsts)


def _log_odds(asked: Sequence[_Asked]) -> Iterator[tuple[float, int]]:
    """Of each target against what was said, and the tokens read for it."""
    models = {id(each.model): each.model for each in asked}
    rows: dict[int, list[tuple[tuple[int, ...], tuple[int, ...]]]] = {key: [] for key in models}
    counts: list[tuple[int, int, int, int]] = []
    for each in asked:
        ids = each.model.encode(each.request).ids
        mine = rows[id(each.model)]
        answers = [each.model.plain_tokens(text) for text in (each.said, each.target)]
        counts.append((id(each.model), len(mine), len(ids), len(ids) + sum(map(len, answers))))
        mine += [(ids[:1], (*ids[1:], *answer)) for answer in answers]
    fits = {key: token_fit(models[key], each) for key, each in rows.items()}
    for key, place, length, tokens in counts:
        of_said, of_target = (fits[key][number].log_probs[length - 1 :].sum().item() for number in (place, place + 1))
        yield of_target - of_said, tokens
