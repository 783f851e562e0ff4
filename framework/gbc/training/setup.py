"""What a recipe names, made: graph, models where a strategy wants them, functions of tasks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from framework.core.errors import DataError, FrameworkError
from framework.core.io import atomic_write
from framework.gbc.execution.loading import load_candidates, parse_model_configs, used_configs
from framework.gbc.execution.runner import LanguageModel, Task
from framework.gbc.graph.spec import Graph, parse_graph
from framework.gbc.graph.yaml_config import make_function, read_yaml, to_yaml
from framework.gbc.language_models.local import LocalModel, LocalModelConfig
from framework.gbc.language_models.server import ServerModel
from framework.gbc.language_models.straight_through import Target
from framework.gbc.prompt_search.candidates import Candidates
from framework.gbc.prompt_search.opro import Opro
from framework.gbc.prompt_search.search import Proposer
from framework.gbc.training.collective_models import CollectiveModels, shard_layers
from framework.gbc.training.prompt_steps import SearchConfig
from framework.training.strategies.placement import Placement

Declared = str | dict[str, Any]
"""A YAML file, or what stands in one; for functions an import path, or a class with its arguments."""


@dataclass(frozen=True, kw_only=True)
class System:
    """A graph and its models.

    Attributes:
        declared: the graph as YAML gives it.
        graph: with the prompts that it was declared with.
        models: by the names that agents use, and a writer's.
        lockstep: keeps the processes in step where models are sharded.
    """

    declared: dict[str, Any]
    graph: Graph
    models: Mapping[str, LanguageModel]
    lockstep: CollectiveModels

    @property
    def local_models(self) -> tuple[LocalModel, ...]:
        """Those with weights of ours."""
        return tuple(model for model in self.models.values() if isinstance(model, LocalModel))

    @property
    def is_sharded(self) -> bool:
        """Whether a model is spread over processes."""
        return bool(self.lockstep.models)


def load_system(graph: Declared, models: Declared, placement: Placement, *others: str) -> System:
    """The graph and the models that its agents use.

    Args:
        graph: as `load_graph` reads it.
        models: as `read_model_configs` reads it; where a local model runs is the placement's choice.
        placement: of the trainer's strategy.
        others: further models.

    Raises:
        ConfigError: a file that cannot be read, a graph or a model that cannot be used.
    """
    declared = read_yaml(graph) if isinstance(graph, str) else graph
    made = parse_graph(declared, source=graph if isinstance(graph, str) else "model.graph")
    source = models if isinstance(models, str) else "model.models"
    configs = parse_model_configs(read_yaml(models) if isinstance(models, str) else models, source=source)
    found: dict[str, LanguageModel] = {}
    sharded = []
    for name, config in used_configs(configs, made, *others, source=source).items():
        if isinstance(config, LocalModelConfig):
            # Sharded layers go to the device one by one.
            device = str(placement.device) if placement.shard is None else "cpu"
            found[name] = local = LocalModel.load(replace(config, device=device))
            sharded.append(shard_layers(local, placement))
        else:
            found[name] = ServerModel(config)
    return System(
        declared=declared, graph=made, models=found, lockstep=CollectiveModels([each for each in sharded if each])
    )


def save_declared(path: Path, declared: Mapping[str, Any], prompts: Mapping[str, str]) -> None:
    """Writes a graph's YAML with other prompts, for `load_graph`; makes the folder. Raises OSError.

    Not by `save_graph`: a tool that was made of a class keeps its arguments so.
    """
    agents = [{**agent, "prompt": prompts[agent["name"]]} for agent in declared["agents"]]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as stream:
        stream.write(to_yaml({**declared, "agents": agents}).encode())


def make_proposer(config: SearchConfig, models: Mapping[str, LanguageModel]) -> Proposer:
    """The proposer of a recipe.

    Raises:
        ConfigError: a file of candidates that cannot be read.
    """
    if config.proposer == "candidates":
        assert config.candidates is not None
        return Candidates(load_candidates(config.candidates), by=config.by)
    assert config.writer is not None
    return Opro(models[config.writer], by=config.by, max_examples=config.max_examples)


def target_of(declared: Declared) -> Callable[[Task], Target]:
    """What gives the right output of a task: the task's field of a name, or a function as `make_function` reads it.

    What it gives is checked; a task without it raises DataError.

    Raises:
        ConfigError: what `make_function` finds.
    """
    name = declared if isinstance(declared, str) else str(declared.get("class_path"))
    is_field = isinstance(declared, str) and "." not in declared and ":" not in declared
    function = None if is_field else make_function(declared)

    def target(task: Task) -> Target:
        try:
            value = task.get(name) if function is None else function(task)
        except FrameworkError:
            raise
        except Exception as error:
            problem = f"target {name} raised {type(error).__name__} ({error}) on task {task.get('id')!r}"
            raise DataError(problem, hint="see the fields of the task, and the function") from error
        texts = list(value.values()) if isinstance(value, Mapping) else [value]
        if not texts or not all(isinstance(text, str) for text in texts):
            problem = f"task {task.get('id')!r} has no text {name!r} to train for"
            raise DataError(problem, hint="set model.soft.target to the field or the function with the right output")
        return value  # pyright: ignore[reportReturnType]

    return target
