"""`framework optimize`: better prompts for the agents of a graph."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import unified_diff
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from safetensors.torch import save

from framework.core.errors import ConfigError, DataError
from framework.core.io import atomic_write, sha256_of
from framework.gbc.execution.loading import (
    enough_memory,
    load_candidates,
    load_loss,
    load_models,
    load_tasks,
    read_model_configs,
)
from framework.gbc.execution.runner import LanguageModel, Task
from framework.gbc.graph.spec import Graph, load_graph, save_graph
from framework.gbc.graph.verbal_loss import Loss
from framework.gbc.language_models.local import LocalModel
from framework.gbc.prompt_search import search as loop
from framework.gbc.prompt_search.candidates import Candidates
from framework.gbc.prompt_search.opro import Opro
from framework.gbc.prompt_search.search import Blame, OptimizeOptions, Proposer
from framework.gbc.prompt_search.soft_prompt import SoftPromptOptions, SoftPromptTrainer
from framework.gbc.prompt_search.state import OptimizerState, Trial, load_state

Tasks = Sequence[Task]

console = Console(stderr=True, highlight=False, soft_wrap=True)


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
    by: Blame = "own",
    model: str | None = None,
    target: str = "expected",
    options: OptimizeOptions = OptimizeOptions(),  # noqa: B008 - frozen
    soft: SoftPromptOptions = SoftPromptOptions(),  # noqa: B008 - frozen
) -> None:
    """Improve the prompts of a graph's agents: blame, change, try on held-out tasks, keep what helps.

    The state is saved in OUT after every step: the same command goes on where it was cut off, also by a server that
    failed. `candidates` and `opro` write OUT/graph.yaml with the best prompts; `soft_prompt` writes
    OUT/soft_prompts.safetensors for `soft_prompts` in the file of models.

    Args:
        graph: the YAML file of the graph.
        tasks: JSON lines, training tasks: those that are blamed for.
        held_out: JSON lines, the tasks that decide what is kept.
        models: YAML file of the models.
        loss: exact_match, slot_loss or an import path such as package.module:function.
        out: folder of the optimization.
        optimizer: candidates chooses among given prompts; opro lets a language model write them; soft_prompt trains
            embeddings after the prompts by gradient descent.
        candidates: for candidates, YAML file: by agent, a list of prompts.
        by: the credit that blames: share of the walks, what ends at an agent, or what passes through it.
        model: by its name in MODELS, the one that writes (opro) or is trained (soft_prompt); may be left out where
            MODELS has only one.
        target: for soft_prompt, the field of the tasks with the right output.
        options: for candidates and opro.
        soft: for soft_prompt.
    """
    folder, declared = Path(out), load_graph(graph)
    train, judged_on, judge = load_tasks(tasks), load_tasks(held_out), load_loss(loss)
    named = [] if optimizer == "candidates" else [model or _only_model(models)]
    proposer = _candidates(candidates, by) if optimizer == "candidates" else None
    known = load_models(models, declared, *named)
    _claim(folder, {"graph": graph, "tasks": tasks, "held_out": held_out}, {"loss": loss, "optimizer": optimizer})
    if optimizer == "soft_prompt":
        trainer = SoftPromptTrainer(
            declared, known, named[0], loss=judge, target=lambda task: _target(task, target), options=soft
        )
        with enough_memory("lower --soft.batch_size, or batch_size of the model"):
            _train(trainer, train, judged_on, folder)
        return
    proposer = proposer or Opro(known[named[0]], by=by)
    told, state = 0, None
    with enough_memory("lower batch_size of the model, or --options.attribution.connections.gradients.max_tokens"):
        for state in _steps(declared, known, judge, proposer, train, judged_on, options, folder / "state.json"):
            save_graph(folder / "graph.yaml", declared.with_prompts(state.prompts))
            for trial in state.trials[told:]:
                console.print(_told(trial))
            told = len(state.trials)
    assert state is not None
    _show(declared, state)
    console.print(f"best prompts in {folder / 'graph.yaml'}, state in {folder / 'state.json'}")


def _steps(
    graph: Graph,
    models: Mapping[str, LanguageModel],
    loss: Loss,
    proposer: Proposer,
    train: Tasks,
    held_out: Tasks,
    options: OptimizeOptions,
    path: Path,
) -> Iterator[OptimizerState]:
    """The state after each step, from the saved one on, at least one."""
    state = load_state(path) if path.exists() else None
    if state is not None:
        console.print(f"goes on at step {state.step}, held-out loss {state.loss:.4g}")
    while True:
        steps = min(options.steps, 1 + (state.step if state else 0))
        state = loop.optimize(
            graph,
            models,
            loss,
            proposer,
            train=train,
            held_out=held_out,
            options=replace(options, steps=steps),
            state=state,
            save_to=path,
        )
        yield state
        if state.finished or state.step >= options.steps:
            return


def _only_model(models: str) -> str:
    names = list(read_model_configs(models))
    if len(names) > 1:
        raise ConfigError(f"{models} names {len(names)} models", hint=f"give --model, one of {', '.join(names)}")
    return names[0]


def _candidates(path: str | None, by: Blame) -> Candidates:
    if path is None:
        raise ConfigError("no candidates", hint="give --candidates FILE.yaml, or --optimizer opro or soft_prompt")
    return Candidates(load_candidates(path), by=by)


def _claim(folder: Path, files: Mapping[str, str], settings: Mapping[str, str]) -> None:
    """Notes what the folder is an optimization of, and refuses to go on with something else.

    Raises:
        ConfigError: the folder is that of another optimization.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "inputs.json"
    inputs = {**{name: sha256_of(Path(file)) for name, file in files.items()}, **settings}
    before = json.loads(path.read_text()) if path.exists() else inputs
    changed = [name for name in inputs if before.get(name) != inputs[name]]
    if changed:
        problem = f"{folder} is an optimization with another {', '.join(changed)}"
        raise ConfigError(problem, hint="use another --out, or what it began with")
    with atomic_write(path) as stream:
        stream.write(json.dumps(inputs, indent=1).encode() + b"\n")


def _told(trial: Trial) -> str:
    agents = ", ".join(trial.changes)
    return f"step {trial.step}: {agents}, held-out loss {trial.loss:.4g}{', kept' if trial.kept else ''}"


def _show(graph: Graph, state: OptimizerState) -> None:
    screen = Console(highlight=False)
    table = Table("trial", "agent", "loss", "kept", title=f"held-out loss {state.loss:.4g}, {state.runs} runs")
    for index, trial in enumerate(state.trials, 1):
        table.add_row(str(index), ", ".join(trial.changes), f"{trial.loss:.4g}", "kept" if trial.kept else "")
    screen.print(table)
    for agent, old in graph.prompts.items():
        lines = unified_diff(old.splitlines(), state.prompts[agent].splitlines(), "before", "after", n=1, lineterm="")
        for number, line in enumerate(lines):
            if number == 0:
                screen.print(f"prompt of {agent}", markup=False)
            if number > 1:
                screen.print(line, markup=False, style={"+": "green", "-": "red"}.get(line[:1]), soft_wrap=True)


def _target(task: Task, field: str) -> str:
    value = task.get(field)
    if not isinstance(value, str):
        problem = f"task {task['id']!r} has no text {field!r} to train for"
        raise DataError(problem, hint="give --target, the field with the right output")
    return value


def _train(trainer: SoftPromptTrainer, train: Tasks, held_out: Tasks, folder: Path) -> None:
    path = folder / "state.pt"
    if path.exists():
        trainer.restore(path)
        console.print(f"goes on at step {trainer.step}, best held-out loss {trainer.best_loss:.4g}")
    for task in train:
        trainer.target(task)
    trainer.fit(train, held_out, save_to=path)
    model = trainer.models[trainer.name]
    assert isinstance(model, LocalModel)
    screen = Console(highlight=False)
    if trainer.losses:
        first, last = trainer.losses[0], trainer.losses[-1]
        screen.print(f"training loss {first:.4g} -> {last:.4g} a token in {trainer.step} steps")
    screen.print(f"best held-out loss {trainer.best_loss:.4g}")
    result = folder / "soft_prompts.safetensors"
    if not model.soft:
        # The file of an earlier call would be of soft prompts that were better then.
        result.unlink(missing_ok=True)
        screen.print("no soft prompts were better than none")
        return
    with atomic_write(result) as stream:
        stream.write(save({name: value.detach().cpu().contiguous() for name, value in model.soft.items()}))
    console.print(
        f"{', '.join(model.soft)}: put `soft_prompts: {result}` beside {trainer.name!r} in the file of models"
    )
