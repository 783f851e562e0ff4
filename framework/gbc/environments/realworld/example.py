"""A system of a real language model with a planted fault as files, for the commands that run, blame and improve."""

import json
from pathlib import Path

import yaml

from framework.core.errors import ConfigError
from framework.core.io import atomic_write
from framework.gbc.environments.realworld.systems import FORMAT, MODEL, PlantedFault, choose_systems
from framework.gbc.graph.spec import save_graph


def write_example(folder: str | Path, *, model: str, system: str, fault: int) -> PlantedFault:
    """Writes `graph.yaml`, `faulty.yaml`, `tasks.jsonl`, `held_out.jsonl`, `models.yaml` and `candidates.yaml`.

    The candidates of an agent are its own prompt and those of all its faults.

    Args:
        folder: made where it is missing; files in it are replaced.
        model: folder of a causal language model.
        system: name of one of `load_systems`.
        fault: its number in the system's list, from 0; of a prompt.

    Raises:
        ConfigError: an unknown system, no such fault of a prompt, or no folder of a model.
        OSError: a file cannot be written.
    """
    (chosen,) = choose_systems([system])
    repaired = {number: each for number, each in enumerate(chosen.faults) if each.function is None}
    if fault not in repaired:
        words = ", ".join(f"{number} ({each.kind} of {each.node})" for number, each in repaired.items())
        raise ConfigError(f"fault {fault} of {system}", hint=f"use one of {words}")
    if not Path(model).is_dir():
        raise ConfigError(f"{model} is not a folder", hint="give a folder made by save_pretrained")
    tasks = chosen.numbered_tasks()
    place = Path(folder)
    save_graph(place / "graph.yaml", chosen.graph)
    save_graph(place / "faulty.yaml", repaired[fault].planted(chosen.graph))
    # Every second task, so that both files have all kinds.
    for name, some in (("tasks", tasks[1::2]), ("held_out", tasks[::2])):
        _write(place / f"{name}.jsonl", "".join(json.dumps(task) + "\n" for task in some))
    settings = {"path": str(Path(model).resolve()), "plain_format": FORMAT}
    _write(place / "models.yaml", yaml.safe_dump({MODEL: settings}))
    _write(place / "candidates.yaml", yaml.safe_dump(chosen.prompts, width=110))
    return repaired[fault]


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as stream:
        stream.write(text.encode())
