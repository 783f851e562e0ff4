"""What a recipe names, made: graph, models where a strategy wants them, functions of tasks."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from framework.core.errors import ConfigError, DataError, FrameworkError
from framework.core.io import atomic_write
from framework.core.serialization import JsonDict
from framework.data.module import ShardDataModule
from framework.gbc.execution.loading import load_candidates, load_models
from framework.gbc.execution.runner import Task
from framework.gbc.graph.spec import Graph, parse_graph
from framework.gbc.graph.yaml_config import make_function, read_yaml, to_yaml
from framework.gbc.language_models.interface import LanguageModel
from framework.gbc.language_models.local import LocalModel, LocalModelConfig
from framework.gbc.language_models.straight_through import Target
from framework.gbc.prompt_search.candidates import Candidates
from framework.gbc.prompt_search.opro import Opro
from framework.gbc.prompt_search.search import Proposer
from framework.gbc.training.collective_models import CollectiveModels, shard_layers
from framework.gbc.training.prompt_steps import SearchConfig, TrainingSearch
from framework.training.strategies.backend import ShardedLayer
from framework.training.strategies.placement import Placement

Declared = str | JsonDict
"""A YAML file, or what stands in one; for functions an import path, or a class with its arguments."""


@dataclass(frozen=True, kw_only=True)
class System:
    """A graph and its models.

    Attributes:
        declared: the graph as YAML gives it.
        graph: with the prompts that it was declared with.
        models: by the names that agents use, and a writer's.
        collective_models: keeps the processes in step where models are sharded.
    """

    declared: JsonDict
    graph: Graph
    models: Mapping[str, LanguageModel]
    collective_models: CollectiveModels

    @property
    def is_sharded(self) -> bool:
        """Whether a model is spread over processes."""
        return bool(self.collective_models.models)


def load_system(graph: Declared, models: Declared, placement: Placement, *others: str) -> System:
    """The graph and the models that its agents use, where the trainer's strategy wants them.

    Args:
        graph: as `load_graph` reads it.
        models: as `load_models` reads it; where a local model runs is the placement's choice.
        placement: of the trainer's strategy.
        others: further models.

    Raises:
        ConfigError: a file that cannot be read, a graph or a model that cannot be used.
    """
    if placement.compile or placement.activation_checkpointing:
        what = "compile" if placement.compile else "activation_checkpointing"
        warnings.warn(f"strategy.{what} is ignored: the language models of agents are used as they are", stacklevel=2)
    declared = read_yaml(graph) if isinstance(graph, str) else graph
    made = parse_graph(declared, source=graph if isinstance(graph, str) else "model.graph")
    sharded: list[list[ShardedLayer]] = []

    def load_local(config: LocalModelConfig) -> LocalModel:
        # Sharded layers go to the device one by one.
        device = str(placement.device) if placement.shard is None else "cpu"
        local = LocalModel.load(replace(config, device=device))
        sharded.append(shard_layers(local, placement))
        return local

    found = load_models(models, made, *others, load_local=load_local)
    return System(
        declared=declared,
        graph=made,
        models=found,
        collective_models=CollectiveModels([each for each in sharded if each]),
    )


def save_declared(path: Path, declared: JsonDict, prompts: Mapping[str, str]) -> None:
    """Writes a graph's YAML with other prompts, for `load_graph`; makes the folder. Raises OSError.

    Not by `save_graph`: a tool that was made of a class keeps its arguments so.

    Args:
        path: of the file.
        declared: the graph as YAML gives it.
        prompts: by agent.
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


def make_search(
    config: SearchConfig | None,
    system: System,
    *,
    seed: int,
    evaluate: Callable[[Graph], float],
    loss_drifts: bool,
) -> TrainingSearch | None:
    """The search of a recipe, if it has one.

    Args:
        config: how prompts are searched for.
        system: whose prompts.
        seed: of the proposals.
        evaluate: mean loss of a graph over the held-out tasks.
        loss_drifts: something else is trained, which changes that loss.

    Raises:
        ConfigError: a file of candidates that cannot be read.
    """
    if config is None:
        return None
    return TrainingSearch(
        system.graph,
        make_proposer(config, system.models),
        config,
        seed=seed,
        evaluate=evaluate,
        synchronized=system.collective_models.synchronized,
        loss_drifts=loss_drifts,
    )


def target_of(
    declared: Declared, *, hint: str = "set model.soft.target to the field or the function with the right output"
) -> Callable[[Task], Target]:
    """What gives the right output of a task: the task's field of a name, or a function as `make_function` reads it.

    What it gives is checked; a task without it raises DataError.

    Args:
        declared: the name of a field, or a function.
        hint: of that error.

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
        texts = list(cast("Mapping[object, object]", value).values()) if isinstance(value, Mapping) else [value]
        if not texts or not all(isinstance(text, str) for text in texts):
            problem = f"task {task.get('id')!r} has no text {name!r} to train for"
            raise DataError(problem, hint=hint)
        return cast("Target", value)

    return target


def check_data(data: object, *, searches: bool) -> None:
    """Refuses data that agents cannot be trained on.

    Args:
        data: the trainer's data module; only `ShardDataModule` is looked at.
        searches: prompts are searched for, which needs held-out episodes.

    Raises:
        ConfigError: images, or no held-out episodes.
    """
    if isinstance(data, ShardDataModule) and data.kind != "episodes":
        raise ConfigError(f"data.kind is {data.kind}", hint="train agents on episodes")
    if searches and (not isinstance(data, ShardDataModule) or data.validation is None):
        hint = "give data.validation, the episodes that decide which prompts are kept"
        raise ConfigError("model.search without held-out episodes", hint=hint)
