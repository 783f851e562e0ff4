"""What commands are given beside a graph: models, tasks, losses, candidates."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch

from framework.core.errors import ConfigError, DataError, FrameworkError
from framework.core.serialization import JsonDict, parse_object
from framework.core.text_files import numbered_lines
from framework.gbc.graph.spec import Graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import Loss, VerbalLoss, exact_match, slot_loss
from framework.gbc.graph.yaml_config import make_function, parse_record, read_yaml
from framework.gbc.language_models.interface import LanguageModel
from framework.gbc.language_models.local import LocalModel, LocalModelConfig
from framework.gbc.language_models.server import ServerModel, ServerModelConfig
from framework.tracking.paths import expand_paths

_LOSSES = {"exact_match": exact_match, "slot_loss": slot_loss}


def read_model_configs(models: str | Path | Mapping[str, object]) -> dict[str, LocalModelConfig | ServerModelConfig]:
    """The models of a YAML file, or of its content: those with a `path` are local, those with a `url` on a server.

    Raises:
        ConfigError: no such file, or an entry that is neither.
    """
    source = _source_of(models)
    value: object = models if isinstance(models, Mapping) else read_yaml(models)
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(
            f"{source} names no models", hint="write `NAME: {path: FOLDER}` or `NAME: {url: ..., model: ...}`"
        )
    configs: dict[str, LocalModelConfig | ServerModelConfig] = {}
    for name, entry in cast("Mapping[object, object]", value).items():
        what = f"model {name!r} of {source}"
        if not isinstance(entry, dict) or ("path" in entry) == ("url" in entry):
            raise ConfigError(what, hint="give it a `path` (a folder) or a `url` (a server)")
        kind = LocalModelConfig if "path" in entry else ServerModelConfig
        configs[str(name)] = parse_record(
            kind,
            expand_paths(cast("JsonDict", entry)),
            source=what,
            file=None if isinstance(models, Mapping) else models,
        )
    return configs


def load_models(
    models: str | Path | Mapping[str, object],
    graph: Graph,
    *others: str,
    load_local: Callable[[LocalModelConfig], LocalModel] = LocalModel.load,
) -> dict[str, LanguageModel]:
    """The models that the graph's agents use, and others by name; the rest of the file is not loaded.

    Args:
        models: as `read_model_configs` reads them.
        graph: whose agents' models are loaded.
        others: names of further models.
        load_local: what loads a local one.

    Raises:
        ConfigError: a model that `models` does not name, or that cannot be loaded.
    """
    configs = read_model_configs(models)
    users = {agent.model: f"agent {agent.name!r}" for agent in reversed(graph.agents)}
    used = {**dict.fromkeys(others, "an option"), **users}
    for name, user in used.items():
        if name not in configs:
            problem = f"{user} uses model {name!r}, which {_source_of(models)} does not name"
            raise ConfigError(problem, hint=f"use one of {', '.join(configs)}, or add it")
    return _loaded({name: configs[name] for name in used}, load_local)


def load_all_models(models: str | Path) -> dict[str, LanguageModel]:
    """Every model of a YAML file.

    Raises:
        ConfigError: no such file, an entry that is not a model, or a model that cannot be loaded.
    """
    return _loaded(read_model_configs(models), LocalModel.load)


def _loaded(
    configs: Mapping[str, LocalModelConfig | ServerModelConfig], load_local: Callable[[LocalModelConfig], LocalModel]
) -> dict[str, LanguageModel]:
    return {
        name: load_local(config) if isinstance(config, LocalModelConfig) else ServerModel(config)
        for name, config in configs.items()
    }


def role_reader(models: str | Path | Mapping[str, object], graph: Graph) -> list[str]:
    """The first local model, where all agents are on servers: it reads their roles for a diagnosis.

    Args:
        models: as `read_model_configs` reads them.
        graph: whose agents are diagnosed.

    Raises:
        ConfigError: no such file, or an entry that is not a model.
    """
    configs = read_model_configs(models)
    local = [name for name, config in configs.items() if isinstance(config, LocalModelConfig)]
    has_reader = any(agent.model in local for agent in graph.agents)
    return [] if has_reader or not any(agent.role for agent in graph.agents) else local[:1]


def _source_of(models: str | Path | Mapping[str, object]) -> str:
    """What messages call it."""
    return "model.models" if isinstance(models, Mapping) else str(models)


def load_tasks(path: str | Path) -> list[JsonDict]:
    r"""The tasks of a file of JSON lines, each with an `id`: its own, or the number of the task, from 0.

    A task with half of a character in it (`\ud83d`) is read: it fails when it runs, and the others do not.

    Raises:
        DataError: no such file, no tasks, lines that are not JSON objects, or two tasks of one id.
    """
    tasks: dict[str, JsonDict] = {}
    for number, line in numbered_lines(path):
        try:
            task = parse_object(line)
        except ValueError as error:
            hint = 'write a task a line, such as {"id": "1", "user": "Hi"}'
            raise DataError(f"{path}, line {number}: {error}", hint=hint) from None
        name = str(task.get("id", len(tasks)))
        if name in tasks:
            raise DataError(f"{path}, line {number}: a second task {name!r}", hint="give every task an id of its own")
        tasks[name] = {**task, "id": name}
    if not tasks:
        raise DataError(f"{path} has no tasks", hint="write a JSON object a line")
    return list(tasks.values())


def load_loss(declared: str | Mapping[str, object]) -> Loss:
    """`exact_match`, `slot_loss`, or what `make_function` makes; what is wrong with its values is an error.

    Raises:
        ConfigError: an unknown name, or what `make_function` finds.
    """
    name = declared if isinstance(declared, str) else str(declared.get("class_path"))
    if isinstance(declared, str) and name not in _LOSSES and "." not in name and ":" not in name:
        hint = f"use one of {', '.join(_LOSSES)}, or an import path such as package.module:function"
        raise ConfigError(f"loss {name!r}", hint=hint)
    function = _LOSSES[name] if name in _LOSSES else make_function(declared)

    def loss(trace: Trace) -> VerbalLoss:
        try:
            value = function(trace)
        except FrameworkError:
            raise
        except Exception as error:
            problem = f"loss {name} raised {type(error).__name__} ({error}) on task {trace.id!r}"
            raise DataError(problem, hint="see the fields of the task, and the loss") from error
        if not isinstance(value, VerbalLoss):
            problem = f"loss {name} returned {type(value).__name__} on task {trace.id!r}"
            raise ConfigError(problem, hint="let it return a framework.gbc.graph.verbal_loss.VerbalLoss")
        return value

    return loss


def load_candidates(path: str | Path) -> dict[str, list[str]]:
    """Prompts by agent from a YAML file of lists of texts.

    Raises:
        ConfigError: no such file, or something else in it.
    """
    value = read_yaml(path)
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(f"{path} holds no candidates", hint="write `AGENT: [a prompt, another prompt]`")
    candidates = cast("Mapping[object, list[str]]", value)
    for agent, prompts in candidates.items():
        if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):  # pyright: ignore
            raise ConfigError(
                f"{path}: the candidates of {agent!r} are not a list of texts", hint="give a list of prompts"
            )
    return {str(agent): list(prompts) for agent, prompts in candidates.items()}


@contextmanager
def enough_memory(hint: str) -> Generator[None]:
    """Tells what to do where a device's memory is not enough.

    Raises:
        ConfigError: it is not.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).partition(". ")[0]
        raise ConfigError(f"the device's memory is not enough ({reason})", hint=hint) from error
