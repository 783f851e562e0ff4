"""Runs of a graph: level by level, batched over tasks and over the agents that share a model."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from framework.core.console import tracked
from framework.core.errors import ConfigError, DataError, FrameworkError
from framework.core.text_files import half_character_in
from framework.gbc.graph.spec import Agent, Graph, Tool, UserTurn
from framework.gbc.graph.trace import Step, Trace, given_step, labelled_messages
from framework.gbc.graph.unroll import Gate, Plan, PlannedStep, Sources, unroll
from framework.gbc.language_models.interface import LanguageModel, Piece, RecitingModel, Reply, Request
from framework.gbc.language_models.server import ServerError

Task = Mapping[str, Any]
"""A JSON object: the fields that user turns read, and `id`, by default its number."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a graph runs.

    Args:
        tasks_at_once: tasks whose steps share batches.
        on_empty: whether an agent that says nothing ends its task (`fail`) or is read as an empty block (`keep`).
        seed: of the models' random numbers, with the task's id and the step's name.
    """

    tasks_at_once: int = 32
    on_empty: Literal["fail", "keep"] = "fail"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.tasks_at_once < 1:
            raise ConfigError(f"tasks_at_once {self.tasks_at_once}", hint="use 1 or more")


def run_graph(
    graph: Graph,
    models: Mapping[str, LanguageModel],
    tasks: Sequence[Task],
    *,
    options: RunOptions = RunOptions(),
    given: Sequence[Mapping[str, str]] | None = None,
    recited: Sequence[Mapping[str, str]] | None = None,
    progress: bool = False,
) -> Iterator[Trace]:
    """Runs a graph on tasks; yields the traces in their order as they are done.

    A task that fails (a tool that raises, an input longer than the context, an empty answer, a missing field, half of
    a character in a text) gives a trace with its `failure` and the steps before it; the others go on.

    Args:
        graph: the system.
        models: by the names that the agents use.
        tasks: what it runs on.
        options: batches, seeds.
        given: for each task, outputs by step that are taken in place of running the step: planted faults,
            counterfactuals.
        recited: for each task, by agent what it is taken to have said, as its model's tokens (teacher forcing); agents
            that are not named, and those of a server, answer as ever.
        progress: show how many batches of tasks are done.

    Raises:
        ConfigError: a cycle without a bound, an unknown model or step.
        ServerError: a server failed for good; all traces of the batch have been yielded before, finished or failed.
    """
    plan = unroll(graph)
    for agent in graph.agents:
        if agent.model not in models:
            hint = f"use one of {', '.join(models)}"
            raise ConfigError(f"agent {agent.name!r} uses model {agent.model!r}, which is missing", hint=hint)
    names = {step.name for step in plan.steps}
    for name in {name for outputs in given or () for name in outputs}:
        if name not in names:
            raise ConfigError(f"an output is given for the step {name!r}", hint=f"use one of {', '.join(names)}")
    batches = range(0, len(tasks), options.tasks_at_once)
    for start in tracked(batches, "running") if progress else batches:
        runs = [
            _Run(
                plan=plan,
                task=task,
                id=str(task.get("id", start + index)),
                given=given[start + index] if given else {},
                recited=recited[start + index] if recited else {},
            )
            for index, task in enumerate(tasks[start : start + options.tasks_at_once])
        ]
        for level in plan.levels:
            _run_level(level, runs, models, options)
        yield from (run.trace() for run in runs)
        for run in runs:
            if isinstance(run.error, ServerError):
                raise run.error


@dataclass
class _Run:
    plan: Plan
    task: Task
    id: str
    given: Mapping[str, str]
    recited: Mapping[str, str]
    done: dict[str, Step] = field(default_factory=dict[str, Step])
    error: FrameworkError | None = None

    def __post_init__(self) -> None:
        # What cannot be encoded has no tokens, and no request can carry it.
        if (found := half_character_in(self.task)) is not None:
            self.error = DataError(f"task {self.id!a} has {found}", hint="give whole characters")

    def latest(self, sources: Sources) -> str | None:
        """Whichever of the steps ran last."""
        return next((name for name in sources if name in self.done), None)

    def reads(self, step: PlannedStep) -> dict[str, str]:
        """The steps that a step sees, by node."""
        seen = {node: self.latest(sources) for node, sources in step.reads.items()}
        return {node: name for node, name in seen.items() if name is not None}

    def opens(self, gate: Gate) -> bool:
        source = self.latest(gate.sources)
        return source is not None and gate.condition.holds(self.done[source].output) != gate.stops

    def runs(self, step: PlannedStep) -> bool:
        """Whether all gates are open and, where it reads, there is something to read."""
        return all(map(self.opens, step.gates)) and (not step.reads or bool(self.reads(step)))

    def trace(self) -> Trace:
        outputs = [] if self.error else [self.latest(sources) for sources in self.plan.outputs]
        failure = None if self.error is None else str(self.error)
        if not self.error and not any(outputs):
            failure = "no output node ran: see the conditions of the graph"
        return Trace(
            id=self.id,
            task=dict(self.task),
            steps=tuple(self.done.values()),
            skipped=() if self.error else tuple(s.name for s in self.plan.steps if s.name not in self.done),
            outputs=tuple(name for name in outputs if name is not None),
            failure=failure,
        )


def _run_level(
    level: Sequence[PlannedStep], runs: Sequence[_Run], models: Mapping[str, LanguageModel], options: RunOptions
) -> None:
    asked: dict[str, list[tuple[_Run, PlannedStep, Request]]] = defaultdict(list)
    for run in runs:
        for step in level:
            if run.error is not None or not run.runs(step):
                continue
            node = step.node
            if isinstance(node, Agent) and step.name not in run.given:
                seen = {source: (name, run.done[name].output) for source, name in run.reads(step).items()}
                request = build_request(node, step.name, id=run.id, seed=options.seed, seen=seen)
                asked[node.model].append((run, step, request))
                continue
            try:
                run.done[step.name] = _plain_step(run, step)
            except DataError as error:
                run.error = error
    for name, waiting in asked.items():
        for (run, step, _), reply in zip(waiting, _replies(models[name], waiting), strict=True):
            if isinstance(reply, FrameworkError):
                run.error = run.error or reply
            elif (found := half_character_in(reply.output)) is not None:
                problem = f"agent {step.name!r} says {found}"
                run.error = run.error or DataError(problem, hint="see what its model or server gives")
            elif not reply.output.strip() and options.on_empty == "fail":
                hint = "change its prompt, or set on_empty to keep"
                run.error = run.error or DataError(f"agent {step.name!r} says nothing", hint=hint)
            else:
                run.done[step.name] = _agent_step(run, step, reply)


def _replies(
    model: LanguageModel, waiting: Sequence[tuple[_Run, PlannedStep, Request]]
) -> list[Reply | FrameworkError]:
    """The answers to what is asked, in its order; those that are recited are not generated."""
    texts = [run.recited.get(step.node.name) if isinstance(model, RecitingModel) else None for run, step, _ in waiting]
    found: dict[int, Reply | FrameworkError] = {}
    if isinstance(model, RecitingModel):
        known = {index: text for index, text in enumerate(texts) if text is not None}
        found = dict(zip(known, model.recite([waiting[index][2] for index in known], [*known.values()]), strict=True))
    left = [index for index in range(len(waiting)) if index not in found]
    if left:
        found |= zip(left, model.reply([waiting[index][2] for index in left]), strict=True)
    return [found[index] for index in range(len(waiting))]


def build_request(agent: Agent, step: str, *, id: str, seed: int, seen: Mapping[str, tuple[str, str]]) -> Request:
    """What an agent asks of its model.

    Args:
        agent: the agent.
        step: name of the asking step.
        id: of the task; with `seed` and `step` it makes the request's own seed.
        seed: of the run.
        seen: for each node that it reads and that ran: (step, output).
    """
    pieces = (
        Piece(text=literal) if node is None else Piece(text=seen[node][1], source=seen[node][0])
        for literal, node in agent.pieces(seen)
    )
    digest = hashlib.sha256(f"{seed}/{id}/{step}".encode()).digest()
    return Request(
        step=step,
        prompt=agent.prompt,
        pieces=tuple(pieces),
        max_new_tokens=agent.max_new_tokens,
        stop=agent.stop,
        seed=int.from_bytes(digest[:7], "big"),
    )


def _agent_step(run: _Run, step: PlannedStep, reply: Reply) -> Step:
    assert isinstance(step.node, Agent)
    return Step(
        name=step.name,
        node=step.node.name,
        kind="agent",
        model=step.node.model,
        input_text=reply.input_text,
        input_ids=reply.input_ids,
        input_spans=reply.input_spans,
        blocks=reply.blocks,
        controls=_controls(run, step),
        output=reply.output,
        output_ids=reply.output_ids,
        output_spans=reply.output_spans,
        finish=reply.finish,
    )


def _plain_step(run: _Run, step: PlannedStep) -> Step:
    """A user turn, a tool, or whatever the caller has given the output of."""
    reads = run.reads(step)
    text, blocks = labelled_messages((node, source, run.done[source].output.strip()) for node, source in reads.items())
    node = step.node
    return given_step(
        step.name,
        node=node.name,
        kind="user" if isinstance(node, UserTurn) else "tool" if isinstance(node, Tool) else "agent",
        output=run.given[step.name] if step.name in run.given else _output(run, node, reads),
        input_text=text,
        blocks=blocks,
        model=node.model if isinstance(node, Agent) else None,
        controls=_controls(run, step),
    )


def _output(run: _Run, node: Agent | Tool | UserTurn, reads: Mapping[str, str]) -> str:
    if isinstance(node, UserTurn):
        value = run.task.get(node.field or node.name)
        if not isinstance(value, str):
            hint = "give every task the fields that the user turns read"
            raise DataError(f"task {run.id!r} has no text {node.field or node.name!r}", hint=hint)
        return value
    assert isinstance(node, Tool)
    try:
        output = cast(object, node.function({name: run.done[source].output for name, source in reads.items()}))
    except ConfigError:
        # Of its settings, whatever the task.
        raise
    except Exception as error:
        problem = f"tool {node.name!r} raised {type(error).__name__} ({error})"
        raise DataError(problem, hint="see what it was given") from error
    if not isinstance(output, str):
        hint = "let it return a text"
        raise DataError(f"tool {node.name!r} returned {type(output).__name__}", hint=hint)
    if (found := half_character_in(output)) is not None:
        raise DataError(f"tool {node.name!r} returned {found}", hint="let it return whole characters")
    return output


def _controls(run: _Run, step: PlannedStep) -> tuple[str, ...]:
    sources = (run.latest(gate.sources) for gate in step.gates)
    return tuple(dict.fromkeys(source for source in sources if source is not None))
