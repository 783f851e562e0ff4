"""A system of the micro world with a planted fault as files, for the commands that run, blame and improve (ours)."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import yaml

from framework.core.errors import ConfigError
from framework.core.io import atomic_write
from framework.gbc.environments.microworld.faults import KINDS, Fault, plant
from framework.gbc.environments.microworld.rules import RuleModel
from framework.gbc.environments.microworld.system import MODEL, System, draw_system, make_graph
from framework.gbc.environments.microworld.tasks import answer_loss, make_tasks
from framework.gbc.environments.microworld.world import MOST_WRONG, candidate_prompts, load_model
from framework.gbc.execution.runner import Task, run_graph
from framework.gbc.graph.spec import save_graph
from framework.gbc.language_models.interface import LanguageModel

PROMPT_FAULTS = tuple(kind for kind in KINDS if kind != "tool")
"""What other prompts repair."""
LOSS = f"{answer_loss.__module__}:{answer_loss.__qualname__}"
"""The import path of the loss."""
_SHIPPED = Path(__file__).parent / "model"
_LEAST_LOST = 0.5
_MOST_TRIES = 1000


def write_example(
    folder: str | Path,
    *,
    kind: str,
    num_tasks: int = 16,
    num_wrong: int = 4,
    num_workers: int | None = None,
    seed: int = 0,
) -> Fault:
    """Writes `graph.yaml`, `faulty.yaml`, `tasks.jsonl`, `held_out.jsonl`, `models.yaml` and `candidates.yaml`.

    A function of its arguments: the first system and fault of the seed with which half or more of the held-out tasks
    fail that are solved without it, by the shipped model.

    Args:
        folder: made where it is missing; files in it are replaced.
        kind: of the fault, one of `PROMPT_FAULTS`.
        num_tasks: in each of the two files of tasks.
        num_wrong: candidates of each agent besides its healthy prompt.
        num_workers: 3 to 5; drawn by default.
        seed: of all that is drawn.

    Raises:
        ConfigError: another kind, or a number out of range.
        OSError: a file cannot be written.
    """
    if kind not in PROMPT_FAULTS or num_tasks < 1:
        hint = f"use a fault of {', '.join(PROMPT_FAULTS)}, and 1 task or more"
        raise ConfigError(f"fault {kind!r}, num_tasks {num_tasks}", hint=hint)
    if not 0 <= num_wrong <= MOST_WRONG:
        raise ConfigError(f"num_wrong {num_wrong}", hint=f"use 0 to {MOST_WRONG}")
    model = load_model(str(_SHIPPED))
    rng = random.Random(f"example/{seed}")
    for _ in range(_MOST_TRIES):
        system = draw_system(rng.getrandbits(48), num_workers=num_workers)
        fault = plant(system, kind, seed=rng.getrandbits(48))
        tasks = make_tasks(system, 2 * num_tasks, seed=rng.getrandbits(48))
        # By the rules first, which take no time; the model may forgive what they do not.
        if _lost(RuleModel(), system, fault, tasks[num_tasks:]) < _LEAST_LOST:
            continue
        if _lost(model, system, fault, tasks[num_tasks:]) >= _LEAST_LOST:
            break
    else:
        raise ConfigError(f"no fault {kind!r} that fails at half of {num_tasks} tasks", hint="use more tasks")
    place = Path(folder)
    save_graph(place / "graph.yaml", make_graph(system))
    save_graph(place / "faulty.yaml", fault.graph)
    for name, some in (("tasks", tasks[:num_tasks]), ("held_out", tasks[num_tasks:])):
        _write(place / f"{name}.jsonl", "".join(json.dumps(task) + "\n" for task in some))
    _write(place / "models.yaml", yaml.safe_dump({MODEL: {"path": str(_SHIPPED)}}))
    candidates = candidate_prompts(system, num_wrong=num_wrong, seed=seed)
    _write(
        place / "candidates.yaml", yaml.safe_dump({name: list(each) for name, each in candidates.items()}, width=110)
    )
    return fault


def _lost(model: LanguageModel, system: System, fault: Fault, tasks: Sequence[Task]) -> float:
    """Share of the tasks that a model solves without the fault and not with it."""
    solved = [
        [trace.failure is None and answer_loss(trace).value == 0 for trace in run_graph(graph, {MODEL: model}, tasks)]
        for graph in (make_graph(system), fault.graph)
    ]
    return sum(before and not after for before, after in zip(*solved, strict=True)) / len(tasks)


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as stream:
        stream.write(text.encode())
