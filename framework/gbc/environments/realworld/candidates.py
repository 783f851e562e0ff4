"""Ways to name the culprit of a failing episode, each a function of the episode; and the upper bound."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from framework.gbc.attribution.attribute import attribute
from framework.gbc.attribution.baselines import attention_scores, leave_agents_out, outputs_before
from framework.gbc.attribution.culprits.diagnosis import probabilities
from framework.gbc.attribution.culprits.evidence import gather_evidence
from framework.gbc.attribution.culprits.shared_prompts import SharedPrompts
from framework.gbc.attribution.options import (
    AttributionOptions,
    CounterfactualEditOptions,
    Scalar,
)
from framework.gbc.attribution.results import Attribution
from framework.gbc.attribution.token_gradients import token_scores
from framework.gbc.environments.planted_faults import CREDITS, Cost, CountedScorer, blame_by_variants, blame_of, counted
from framework.gbc.environments.realworld.episodes import RUN, Failure, FaultySystem
from framework.gbc.environments.realworld.systems import MODEL
from framework.gbc.execution.runner import run_graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import slot_loss

EVIDENCE = "evidence"
EDITS = {
    "edits": CounterfactualEditOptions(),
    "edits, keep 1": CounterfactualEditOptions(keep=1.0),
    "edits, keep 0": CounterfactualEditOptions(keep=0.0),
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Who is named, and what it cost.

    Attributes:
        blame: by node; the largest is named.
        cost: of it.
        is_probability: whether blame adds up to 1.
        features: of the evidence by node, where that is what blame comes from.
    """

    blame: Mapping[str, float]
    cost: Cost
    is_probability: bool = False
    features: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, Mapping[str, float]])


Candidate = Callable[[SharedPrompts, FaultySystem, Failure], dict[str, Verdict]]
"""The verdicts of one method's variants, by their names; they share their cost."""


def random_node(model: SharedPrompts, faulty: FaultySystem, failure: Failure) -> dict[str, Verdict]:
    """Any agent or tool: the expected share.

    Args:
        model: of the agents.
        faulty: the system with the fault.
        failure: the run that failed.
    """
    return {"random": Verdict(blame={}, cost=Cost())}


def last_node(model: SharedPrompts, faulty: FaultySystem, failure: Failure) -> dict[str, Verdict]:
    """Whoever said the output, without a look at it.

    Args:
        model: of the agents.
        faulty: the system with the fault.
        failure: the run that failed.
    """
    node = failure.trace.step(failure.trace.outputs[0]).node
    return {"whoever said the output": Verdict(blame={node: 1.0}, cost=Cost())}


def leave_one_out(model: SharedPrompts, faulty: FaultySystem, failure: Failure) -> dict[str, Verdict]:
    """Each agent and tool silent in turn: the one without which the loss falls most.

    Args:
        model: of the agents.
        faulty: the system with the fault.
        failure: the run that failed.
    """
    started = time.perf_counter()
    (found,) = leave_agents_out(faulty.graph, {MODEL: model}, [failure.trace], slot_loss, options=RUN)
    cost = Cost(answers=found.calls, tokens=found.tokens, seconds=time.perf_counter() - started)
    return {"leave-one-out": Verdict(blame=found.effects, cost=cost)}


def mended(model: SharedPrompts, faulty: FaultySystem, failure: Failure) -> dict[str, Verdict]:
    """The upper bound: each agent's prompt and each tool as in the healthy system, and the run from there on again.

    Args:
        model: of the agents.
        faulty: the system with the fault.
        failure: the run that failed.
    """
    started = time.perf_counter()
    healthy, trace = faulty.system.graph, failure.trace
    effects: dict[str, float] = {}
    answers = tokens = 0
    for node in dict.fromkeys(step.node for step in trace.steps if step.kind != "user"):
        if node in healthy.prompts:
            graph = faulty.graph.with_prompts({node: healthy.prompts[node]})
        else:
            others = (tool for tool in faulty.graph.tools if tool.name != node)
            graph = replace(faulty.graph, tools=(*others, *(tool for tool in healthy.tools if tool.name == node)))
        (run,) = run_graph(
            graph,
            {MODEL: model},
            [{**trace.task, "id": trace.id}],
            options=RUN,
            given=[outputs_before(trace, node)],
        )
        effects[node] = failure.loss.value - loss_of(run)
        said = [step for step in run.steps if step.kind == "agent" and step.finish != "given"]
        answers += len(said)
        tokens += sum(len(step.input_ids) + len(step.output_ids) for step in said)
    cost = Cost(answers=answers, tokens=tokens, seconds=time.perf_counter() - started)
    return {"each node mended (upper bound)": Verdict(blame=effects, cost=cost)}


def loss_of(run: Trace) -> float:
    """The loss of a run; 1 where it failed."""
    return 1.0 if run.failure is not None else slot_loss(run).value


def gradients(scalar: Scalar) -> Candidate:
    """The published variants by a scalar, with the prompts as inputs; their connections walked and complete."""
    return _by_scores(scalar, attention=False)


def attention(model: SharedPrompts, faulty: FaultySystem, failure: Failure) -> dict[str, Verdict]:
    """Attention weights in place of gradients.

    Args:
        model: of the agents.
        faulty: the system with the fault.
        failure: the run that failed.
    """
    return _by_scores("finegrained", attention=True)(model, faulty, failure)


def _by_scores(scalar: Scalar, *, attention: bool) -> Candidate:
    def candidate(model: SharedPrompts, faulty: FaultySystem, failure: Failure) -> dict[str, Verdict]:
        counter = CountedScorer(attention_scores if attention else token_scores)
        found = blame_by_variants(
            {MODEL: model},
            faulty.graph,
            failure.trace,
            failure.loss,
            counter,
            scalar=scalar,
            attention=attention,
        )
        return {method: Verdict(blame=blame, cost=counter.cost) for method, blame in found.items()}

    return candidate


def edits(model: SharedPrompts, faulty: FaultySystem, failure: Failure) -> dict[str, Verdict]:
    """Counterfactual edits to first order, the default of `attribute`.

    Args:
        model: of the agents.
        faulty: the system with the fault.
        failure: the run that failed.
    """
    found: dict[str, Verdict] = {}
    for name, options in EDITS.items():

        def attribute_one(options: CounterfactualEditOptions = options) -> list[Attribution]:
            return attribute(
                [failure.trace], faulty.graph, {MODEL: model}, [failure.loss], AttributionOptions(edits=options)
            )

        (attribution,), cost = counted(model, attribute_one)
        for credit in CREDITS:
            found[f"{name}/{credit}"] = Verdict(blame=blame_of(attribution, credit), cost=cost)
    return found


def asked_at_once(model: SharedPrompts, faulty: FaultySystem, failure: Failure) -> dict[str, Verdict]:
    """The same model reads the whole run and is asked who made the mistake; the likelihood of each name counts.

    Args:
        model: of the agents.
        faulty: the system with the fault.
        failure: the run that failed.
    """
    started = time.perf_counter()
    question = f"{_told(faulty, failure.trace)}\nResult: {failure.loss.text}\nThe agent that made the mistake is"
    ids = model.plain_tokens(question)
    names = list(dict.fromkeys(step.node for step in failure.trace.steps if step.kind != "user"))
    fits = model.fit([(ids, model.plain_tokens(f" {name}.")) for name in names])
    blame = {name: fit.log_probs.mean().item() for name, fit in zip(names, fits, strict=True)}
    cost = Cost(passes=1, tokens=len(ids) + 3 * len(names), seconds=time.perf_counter() - started)
    return {"the model asked, all at once": Verdict(blame=blame, cost=cost)}


def asked_step_by_step(model: SharedPrompts, faulty: FaultySystem, failure: Failure) -> dict[str, Verdict]:
    """The same model is asked after each step whether that was a mistake; the likeliest yes counts.

    Args:
        model: of the agents.
        faulty: the system with the fault.
        failure: the run that failed.
    """
    started = time.perf_counter()
    steps = [step for step in failure.trace.steps if step.kind != "user"]
    yes, no = (model.plain_tokens(answer) for answer in (" yes", " no"))
    blame: dict[str, float] = {}
    tokens = 0
    for step in steps:
        told = _told(faulty, failure.trace, upto=step.name)
        question = f"{told}\nResult in the end: {failure.loss.text}\nDid {step.node} make a mistake here, yes or no?"
        ids = model.plain_tokens(question)
        of_yes, of_no = model.fit([(ids, yes), (ids, no)])
        margin = (of_yes.log_probs.sum() - of_no.log_probs.sum()).item()
        blame[step.node] = max(margin, blame.get(step.node, -1e9))
        tokens += len(ids) + 2
        model.forget_states()
    cost = Cost(passes=len(steps), tokens=tokens, seconds=time.perf_counter() - started)
    return {"the model asked, step by step": Verdict(blame=blame, cost=cost)}


def _told(faulty: FaultySystem, trace: Trace, *, upto: str | None = None) -> str:
    """A run as a reader is told of it: who is there, and who said what."""
    lines = ["A task is solved by a team of agents."]
    lines += [f"{agent.name}: {agent.role}." for agent in faulty.graph.agents]
    lines += [f"{tool.name}: a tool." for tool in faulty.graph.tools]
    lines.append("What they said:")
    for step in trace.steps:
        lines.append(f"{step.node}: {step.output.strip()}")
        if step.name == upto:
            break
    return "\n".join(lines)


def evidence(model: SharedPrompts, faulty: FaultySystem, failure: Failure) -> dict[str, Verdict]:
    """Where the wrong values come from, and what roles and messages imply (`attribution/evidence.py`).

    Args:
        model: of the agents.
        faulty: the system with the fault.
        failure: the run that failed.
    """
    started = time.perf_counter()
    (found,) = gather_evidence([failure.trace], faulty.graph, {MODEL: model}, [failure.loss])
    cost = Cost(passes=found.passes, tokens=found.tokens, seconds=time.perf_counter() - started)
    blame = probabilities([found.features], faulty.nodes)
    return {EVIDENCE: Verdict(blame=blame, cost=cost, is_probability=True, features=found.features)}


CANDIDATES: dict[str, Candidate] = {
    "evidence": evidence,
    "random": random_node,
    "last": last_node,
    "leave_one_out": leave_one_out,
    "mended": mended,
    "finegrained": gradients("finegrained"),
    "sum_squares": gradients("sum_squares"),
    "attention": attention,
    "edits": edits,
    "asked_at_once": asked_at_once,
    "asked_step_by_step": asked_step_by_step,
}
