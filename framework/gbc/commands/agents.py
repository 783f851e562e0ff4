"""`framework agents`: runs graphs of language-model agents, shows what a graph unrolls to, and makes an example."""

import json
from pathlib import Path
from typing import Literal

from rich.table import Table

from framework.core.console import console, results, tracked
from framework.core.errors import ConfigError, DataError, TrainingError
from framework.core.io import atomic_write, check_outputs
from framework.core.serialization import JsonDict
from framework.gbc.commands.failures import print_failures
from framework.gbc.execution.runner import RunOptions, run_graph
from framework.gbc.graph.spec import Agent, Graph, Tool, load_graph
from framework.gbc.graph.trace import Trace, append_trace, read_traces, write_traces
from framework.gbc.graph.unroll import Plan, PlannedStep, unroll


def run(
    graph: str,
    tasks: str,
    *,
    models: str,
    out: str,
    resume: bool = False,
    loss: str | None = None,
    options: RunOptions = RunOptions(),
) -> None:
    """Run a graph of agents on tasks, and write a trace for each.

    Every trace is written as it is done. When a server fails, those that are done are kept: `--resume` goes on. If no
    task finishes, it ends with code 1.

    Args:
        graph: the YAML file of the graph.
        tasks: JSON lines, a task each: the fields that user turns read, labels, and an `id`.
        models: YAML file: by name, `path` of a folder or `url` and `model` of a server, and their options.
        out: JSON lines to write, a trace each.
        resume: go on with the tasks that OUT has no finished trace of.
        loss: exact_match, slot_loss or an import path; adds the mean over the finished traces.
        options: how the graph runs.
    """
    # Imported here: the other commands need no language model.
    from framework.gbc.execution.loading import enough_memory, load_loss, load_models, load_tasks

    declared, wanted, path = load_graph(graph), load_tasks(tasks), Path(out)
    unroll(declared)
    loss_of = load_loss(loss) if loss is not None else None
    done = _finished(path, declared, wanted, resume)
    check_outputs(path, inputs=[graph, tasks, models])
    left = [task for task in wanted if task["id"] not in done]
    known = load_models(models, declared) if left else {}
    # Without the traces that failed, and half a line of a run that was killed.
    write_traces(path, done.values())
    traces = list(done.values())
    try:
        with enough_memory("lower batch_size of the model, or use another dtype or device"):
            traces_of_left = run_graph(declared, known, left, options=options) if left else ()
            for trace in tracked(traces_of_left, "tasks", total=len(left)):
                append_trace(path, trace)
                traces.append(trace)
    finally:
        _print_counts(path, traces, len(wanted))
    finished = [trace for trace in traces if trace.failure is None]
    if traces and not finished:
        raise TrainingError(
            f"every task failed; the first: {traces[0].failure}", hint="correct what fails, then --resume"
        )
    if loss_of is not None and finished:
        losses = [loss_of(trace) for trace in finished]
        mean = sum(loss.value for loss in losses) / len(losses)
        right = sum(loss.value == 0 for loss in losses)
        console.print(f"mean loss of the finished: {mean:.4g}")
        console.print(f"{right} of {len(losses)} without any error")


def check(graph: str) -> None:
    """Check a graph and show what it unrolls to: its steps, and the connections with how they are estimated.

    Args:
        graph: the YAML file of the graph.
    """
    plan = unroll(load_graph(graph))
    screen = results()
    table = Table("step", "level", "kind", "model", "new tokens", "reads", "runs if", title="steps")
    for step in plan.steps:
        table.add_row(*_cells(step, plan))
    screen.print(table)
    table = Table("from", "to", "kind", "estimator", title="connections")
    for edge in plan.edges:
        table.add_row(edge.source, edge.target, edge.kind, edge.estimator)
    screen.print(table)
    outputs = ", ".join(" or ".join(sources) for sources in plan.outputs)
    screen.print(
        f"{len(plan.steps)} steps in {len(plan.levels)} levels, {len(plan.edges)} connections; output: {outputs}"
    )


def track(
    graph: str,
    dialogues: str,
    *,
    models: str,
    out: str | None = None,
    options: RunOptions = RunOptions(on_empty="keep", tasks_at_once=128),
) -> None:
    """Track the states of MultiWOZ dialogues, turn by turn, and measure them against the labels.

    Agents read the state that they have said themselves, never the label, and say what changes.

    Args:
        graph: the YAML file of the graph, such as recipes/gbc/graphs/multiwoz_state.yaml.
        dialogues: folder of a shard set of dialogues, which `framework shards multiwoz` makes.
        models: YAML file of the models, as for `run`.
        out: JSON lines to write, a task for each turn as the agents met it: to train on what they meet.
        options: how the graph runs.
    """
    from framework.gbc.environments.multiwoz.state_tracking.turns import Tracked, read_dialogues, tracking_metrics
    from framework.gbc.environments.multiwoz.state_tracking.turns import track as track_dialogues
    from framework.gbc.execution.loading import load_models

    declared = load_graph(graph)
    if out is not None:
        check_outputs(out, inputs=[graph, models])
    known = load_models(models, declared)
    found_turns = track_dialogues(declared, known, read_dialogues(dialogues), options=options)
    turns = list(tracked(found_turns, "turns"))
    if out is not None:
        with atomic_write(Path(out)) as stream:
            stream.writelines((json.dumps(turn.task) + "\n").encode() for turn in turns)
    empty = [Tracked(task=turn.task, state={}, expected=turn.expected, failure=None) for turn in turns]
    found, nothing = tracking_metrics(turns), tracking_metrics(empty)
    table = Table("metric", "tracked", "empty state")
    for name, value in found.items():
        table.add_row(name, f"{value:.4f}", f"{nothing[name]:.4f}" if name in nothing else "")
    results().print(table)
    failures = [turn.failure for turn in turns if turn.failure is not None]
    console.print(f"{len(turns)} turns, {len(failures)} failed{f': {failures[0]}' if failures else ''}")


def microworld(
    dest: str,
    *,
    fault: Literal["drop", "swap", "format", "route"] = "swap",
    num_tasks: int = 16,
    num_wrong: int = 4,
    num_workers: int | None = None,
    seed: int = 0,
) -> None:
    """Make an example: a system of the micro world, the same with a planted fault, its tasks and its model.

    Writes to DEST: graph.yaml, faulty.yaml, tasks.jsonl, held_out.jsonl, models.yaml and candidates.yaml, for the other
    commands. The model is small and needs no GPU.

    Args:
        dest: folder for the files; those of an earlier call are replaced.
        fault: what is wrong in the prompt of one agent: it drops a field, swaps two, writes values in another format,
            or sends a request to the wrong worker.
        num_tasks: training tasks, and as many held-out ones.
        num_wrong: wrong candidates of each agent besides its healthy prompt, 0 to 5.
        num_workers: 3 to 5, by default drawn; there are two agents more.
        seed: of system, fault, tasks and candidates.
    """
    # Imported here: the other commands do without.
    from framework.gbc.environments.microworld.files import LOSS, write_example

    planted = write_example(
        dest, kind=fault, num_tasks=num_tasks, num_wrong=num_wrong, num_workers=num_workers, seed=seed
    )
    agents, tools = len(planted.graph.agents), len(planted.graph.tools)
    results(soft_wrap=True).print(
        f"{dest}: {agents} agents and {tools} {'tool' if tools == 1 else 'tools'}; planted in faulty.yaml: "
        f"{planted.words}; the loss is {LOSS}"
    )


def realworld(dest: str, *, model: str, system: str = "hotel", fault: int = 7) -> None:
    """Make an example: a system of agents of your own language model, the same with a planted fault, and its tasks.

    Writes to DEST: graph.yaml, faulty.yaml, tasks.jsonl, held_out.jsonl, models.yaml and candidates.yaml, for the other
    commands; the loss is slot_loss. The prompts are few-shot and in plain text, so that small models follow them.

    Args:
        dest: folder for the files; those of an earlier call are replaced.
        model: folder of a causal language model with safetensors.
        system: one of those that `framework bench blame --world real` measures.
        fault: number of the planted fault in the system's list, from 0; a wrong one is answered with the list.
    """
    # Imported here: the other commands do without.
    from framework.gbc.environments.realworld.example import write_example

    planted = write_example(dest, model=model, system=system, fault=fault)
    results(soft_wrap=True).print(f"{dest}: planted in faulty.yaml: {planted.kind} of {planted.node}; loss slot_loss")


def _finished(path: Path, graph: Graph, tasks: list[JsonDict], resume: bool) -> dict[str, Trace]:
    """The finished traces of an interrupted run, by task, in their order."""
    if not path.exists():
        return {}
    if not resume:
        raise ConfigError(f"{path} exists", hint="give --resume to go on with it, or another name")
    traces, bad = read_traces(path, skip_bad_lines=True)
    with path.open("rb") as stream:
        last = sum(1 for _ in stream)
    # A process that was killed leaves half a line at the end; anything else is another file.
    if any(line.number != last for line in bad):
        problem = f"{path}: line {bad[0].number} is not a trace ({bad[0].problem})"
        raise DataError(problem, hint="correct the line, or write to another file")
    known = {task["id"]: task for task in tasks}
    for trace in traces:
        if trace.id not in known or trace.task != known[trace.id]:
            raise ConfigError(f"{path} is of other tasks ({trace.id!r})", hint="give the tasks that it began with")
        for step in trace.steps:
            prompts = [block.text for block in step.blocks if block.kind == "prompt"]
            if step.node not in graph.nodes or any(text != graph.prompts[step.node].strip() for text in prompts):
                hint = "give the graph that it began with, or write to another file"
                raise ConfigError(f"{path} is of another graph ({step.node!r} differs)", hint=hint)
    return {trace.id: trace for trace in traces if trace.failure is None}


def _print_counts(path: Path, traces: list[Trace], wanted: int) -> None:
    failures = [trace.failure for trace in traces if trace.failure is not None]
    waiting = f", {wanted - len(traces)} not run" if wanted > len(traces) else ""
    console.print(f"{path}: {len(traces) - len(failures)} of {wanted} tasks finished, {len(failures)} failed{waiting}")
    print_failures(failures)


def _cells(step: PlannedStep, plan: Plan) -> list[str]:
    node = step.node
    kind = "agent" if isinstance(node, Agent) else "tool" if isinstance(node, Tool) else "user turn"
    gates = [
        f"{' or '.join(gate.sources)} {'has no' if gate.condition.negate != gate.stops else 'has'} "
        f"/{gate.condition.pattern}/"
        for gate in step.gates
    ]
    return [
        step.name,
        str(step.level),
        kind,
        node.model if isinstance(node, Agent) else "",
        str(node.max_new_tokens) if isinstance(node, Agent) else "",
        ", ".join(" or ".join(sources) for sources in step.reads.values()),
        ", ".join(gates),
    ]
