"""`framework optimize`: better prompts for the agents of a graph."""

import json
from collections.abc import Mapping, Sequence
from difflib import unified_diff
from pathlib import Path
from typing import Literal

from rich.table import Table

from framework.core.console import console, results
from framework.core.errors import ConfigError
from framework.core.io import atomic_write, check_outputs, sha256_of
from framework.core.serialization import parse_object
from framework.gbc.commands.failures import kind_of, print_failures
from framework.gbc.commands.soft_prompt_options import SoftPromptOptions
from framework.gbc.execution.loading import (
    enough_memory,
    load_candidates,
    load_loss,
    load_models,
    load_tasks,
    read_model_configs,
    role_reader,
)
from framework.gbc.execution.runner import Task
from framework.gbc.graph.spec import Graph, load_graph, save_graph
from framework.gbc.graph.verbal_loss import Loss
from framework.gbc.language_models.interface import LanguageModel
from framework.gbc.prompt_search import search
from framework.gbc.prompt_search.candidates import Candidates
from framework.gbc.prompt_search.evidence import BlameKind
from framework.gbc.prompt_search.opro import Opro
from framework.gbc.prompt_search.search import OptimizeOptions, Proposer, TaskRuns
from framework.gbc.prompt_search.state import OptimizerState, Trial, load_state

_INPUTS, _STATE, _BEST = "inputs.json", "state.json", "graph.yaml"
"""What is written into the folder of an optimization."""


def optimize(
    graph: str,
    tasks: str,
    *,
    held_out: str,
    models: str,
    loss: str,
    out: str,
    optimizer: Literal["candidates", "opro", "soft_prompt"] = "candidates",
    candidates: str | None = None,
    by: BlameKind = "own",
    model: str | None = None,
    target: str = "expected",
    options: OptimizeOptions = OptimizeOptions(),
    soft: SoftPromptOptions = SoftPromptOptions(),
) -> None:
    """Improve the prompts of a graph's agents: find who is to blame, change, try on held-out tasks, keep what helps.

    The state is saved in OUT, by soft_prompt after every evaluation and otherwise after every step: the same command
    goes on where it was cut off, also by a server that failed. `candidates` and `opro` write OUT/graph.yaml with the
    best prompts; `soft_prompt` writes OUT/soft_prompts.safetensors for `soft_prompts` in the file of models.
    `framework fit` trains more than that, on several devices: see docs/gbc-training.md.

    Args:
        graph: the YAML file of the graph.
        tasks: JSON lines, training tasks: those whose errors are attributed.
        held_out: JSON lines, the tasks that decide what is kept.
        models: YAML file of the models.
        loss: exact_match, slot_loss or an import path such as package.module:function.
        out: folder of the optimization.
        optimizer: candidates chooses among given prompts; opro lets a language model write them; soft_prompt trains
            embeddings after the prompts by gradient descent.
        candidates: for candidates, YAML file: by agent, a list of prompts.
        by: what agents are chosen by: a credit, which is the share of the walks, what ends at an agent or what passes
            through it; or the diagnosis of all failed tasks together, as `framework attribute` concludes.
        model: by its name in MODELS, the one that writes (opro) or is trained (soft_prompt); may be left out where
            MODELS has only one.
        target: for soft_prompt, the field of the tasks with the right output, or the import path of a function of a
            task.
        options: for candidates and opro.
        soft: for soft_prompt.
    """
    folder, declared = Path(out), load_graph(graph)
    train, held, loss_of = load_tasks(tasks), load_tasks(held_out), load_loss(loss)
    named = [] if optimizer == "candidates" else [model or _only_model(models)]
    readers = role_reader(models, declared) if by == "diagnosis" else []
    proposer = _candidates(candidates, by) if optimizer == "candidates" else None
    read = [path for path in (graph, tasks, held_out, models, candidates) if path is not None]
    check_outputs(folder / _INPUTS, beside=[folder / _STATE, folder / _BEST], inputs=read)
    known = {} if optimizer == "soft_prompt" else load_models(models, declared, *named, *readers)
    _claim(folder, {"graph": graph, "tasks": tasks, "held_out": held_out}, {"loss": loss, "optimizer": optimizer})
    if optimizer == "soft_prompt":
        with enough_memory("lower --soft.batch_size, or batch_size of the model"):
            _train(
                folder, soft, graph=graph, models=models, model=named[0], loss=loss, target=target, tasks=(train, held)
            )
        return
    proposer = proposer or Opro(known[named[0]], by=by)
    with enough_memory("lower batch_size of the model, or --options.attribution.connections.gradients.max_tokens"):
        _search(folder, declared, known, loss_of, proposer, (train, held), options)


def _search(
    folder: Path,
    graph: Graph,
    models: Mapping[str, LanguageModel],
    loss: Loss,
    proposer: Proposer,
    tasks: tuple[Sequence[Task], Sequence[Task]],
    options: OptimizeOptions,
) -> None:
    """Searches for prompts from the saved state on, and prints what was tried."""
    path = folder / _STATE
    state = load_state(path) if path.exists() else None
    if state is not None:
        console.print(f"goes on at step {state.step}, held-out loss {state.loss:.4g}")
    progress = _Progress(graph, folder, options.min_gain, state)
    state = search.optimize(
        graph,
        models,
        loss,
        proposer,
        train=tasks[0],
        held_out=tasks[1],
        options=options,
        state=state,
        save_to=path,
        on_step=progress.note,
        on_runs=progress.note_runs,
    )
    progress.note(state)
    _show(graph, state)
    console.print(f"best prompts in {folder / _BEST}, state in {path}")


class _Progress:
    """Writes the best prompts after every step, and prints each trial and each kind of failure once."""

    def __init__(self, graph: Graph, folder: Path, min_gain: float, state: OptimizerState | None) -> None:
        self.graph, self.folder, self.min_gain = graph, folder, min_gain
        self.num_printed = 0 if state is None else len(state.trials)
        self.told: set[str] = set()

    def note_runs(self, runs: TaskRuns) -> None:
        """Tells of tasks that failed, and why, unless it has told of all these reasons."""
        kinds = set(map(kind_of, runs.failures))
        if kinds - self.told:
            console.print(f"{len(runs.failures)} of {runs.num_tasks} {runs.kind} tasks failed:", style="yellow")
            print_failures(runs.failures)
        self.told |= kinds

    def note(self, state: OptimizerState) -> None:
        save_graph(self.folder / _BEST, self.graph.with_prompts(state.prompts))
        for trial in state.trials[self.num_printed :]:
            console.print(_line_of(trial, self.min_gain))
        self.num_printed = len(state.trials)


def _only_model(models: str) -> str:
    names = list(read_model_configs(models))
    if len(names) > 1:
        raise ConfigError(f"{models} names {len(names)} models", hint=f"give --model, one of {', '.join(names)}")
    return names[0]


def _candidates(path: str | None, by: BlameKind) -> Candidates:
    if path is None:
        raise ConfigError("no candidates", hint="give --candidates FILE.yaml, or --optimizer opro or soft_prompt")
    return Candidates(load_candidates(path), by=by)


def _claim(folder: Path, files: Mapping[str, str], settings: Mapping[str, str]) -> None:
    """Notes what the folder is an optimization of, and refuses to go on with something else.

    Raises:
        ConfigError: the folder is that of another optimization.
    """
    path = folder / _INPUTS
    inputs = {**{name: sha256_of(Path(file)) for name, file in files.items()}, **settings}
    try:
        before = parse_object(path.read_bytes()) if path.exists() else inputs
    except ValueError as error:
        raise ConfigError(f"{path} cannot be read ({error})", hint="use another --out") from None
    changed = [name for name in inputs if before.get(name) != inputs[name]]
    if changed:
        problem = f"{folder} is an optimization with another {', '.join(changed)}"
        raise ConfigError(problem, hint="use another --out, or what it began with")
    with atomic_write(path) as stream:
        stream.write(json.dumps(inputs, indent=1).encode() + b"\n")


def _line_of(trial: Trial, min_gain: float) -> str:
    agents = ", ".join(trial.changes)
    if trial.kept:
        verdict = "kept"
    elif trial.loss_before is None:
        verdict = "dropped"
    else:
        margin = f" by more than min_gain {min_gain:g}" if min_gain else ""
        verdict = f"dropped: not below {trial.loss_before:.4g}{margin}"
    return f"step {trial.step}: {agents}, held-out loss {trial.loss:.4g}, {verdict}"


def _show(graph: Graph, state: OptimizerState) -> None:
    screen = results()
    table = Table("trial", "agent", "loss", "kept", title=f"held-out loss {state.loss:.4g}, {state.runs} runs")
    for index, trial in enumerate(state.trials, 1):
        table.add_row(str(index), ", ".join(trial.changes), f"{trial.loss:.4g}", "kept" if trial.kept else "")
    screen.print(table)
    screen = results(soft_wrap=True)
    for agent, old in graph.prompts.items():
        lines = unified_diff(old.splitlines(), state.prompts[agent].splitlines(), "before", "after", n=1, lineterm="")
        for number, line in enumerate(lines):
            if number == 0:
                screen.print(f"prompt of {agent}")
            if number > 1:
                screen.print(line, style={"+": "green", "-": "red"}.get(line[:1]))


def _train(
    folder: Path, options: SoftPromptOptions, *, tasks: tuple[Sequence[Task], Sequence[Task]], **inputs: str
) -> None:
    """Trains soft prompts from the newest checkpoint on, and prints the losses."""
    # Imported here: the other optimizers do without Lightning.
    from framework.gbc.commands.soft_prompts import SoftPromptInputs, best_loss_of, steps_done, train_soft_prompts

    done, best = steps_done(folder), best_loss_of(folder)
    if done:
        console.print(f"goes on at step {done}{'' if best is None else f', best held-out loss {best:.4g}'}")
    found = train_soft_prompts(SoftPromptInputs(train=tasks[0], held_out=tasks[1], **inputs), options, folder)
    screen = results()
    if found.losses:
        first, last = found.losses[0], found.losses[-1]
        screen.print(f"training loss {first:.4g} -> {last:.4g} a token in {len(found.losses)} steps")
    screen.print(f"best held-out loss {found.best_loss:.4g}")
    result = folder / "soft_prompts.safetensors"
    if found.file is None:
        # The file of an earlier call would be of soft prompts that were better then.
        result.unlink(missing_ok=True)
        screen.print("no soft prompts were better than none")
        return
    with atomic_write(result) as stream:
        stream.write(found.file.read_bytes())
    model = inputs["model"]
    agents = ", ".join(agent.name for agent in load_graph(inputs["graph"]).agents if agent.model == model)
    console.print(f"{agents}: put `soft_prompts: {result}` beside {model!r} in the file of models")
