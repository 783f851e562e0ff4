"""Systems of a real language model: graphs, tasks and faults, as people write them; a YAML file each (ours)."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

from framework.core.errors import ConfigError
from framework.core.serialization import JsonDict
from framework.core.text_files import parse_yaml
from framework.gbc.environments.realworld.multiwoz_turns import first_turns
from framework.gbc.execution.runner import Task
from framework.gbc.graph.spec import Agent, Graph, ToolFunction
from framework.gbc.graph.yaml_config import parse_record

MODEL = "lm"
"""The name of the language model in the graphs."""
FORMAT = "{prompt}\n\n{message}"
"""How the model reads an agent's prompt and message: plain text, whose pattern it continues."""
FaultKind = Literal[
    "wrong_example",
    "missing_field",
    "swapped_fields",
    "wrong_format",
    "wrong_route",
    "wrong_tool",
    "contradiction",
    "ignored_message",
]
Part = Literal["choosing", "held_out"]


@dataclass(frozen=True, kw_only=True)
class PlantedFault:
    """What is wrong with one node.

    Args:
        kind: of the fault.
        node: the culprit.
        replace: texts of its prompt, and what stands there instead; each must be there.
        function: of a tool, in place of its own.
    """

    kind: FaultKind
    node: str
    replace: dict[str, str] = field(default_factory=dict[str, str])
    function: ToolFunction | None = None

    def __post_init__(self) -> None:
        if bool(self.replace) == (self.function is not None):
            raise ConfigError(f"a fault {self.kind} of {self.node!r}", hint="give texts to replace or a function")

    def planted(self, graph: Graph) -> Graph:
        """The graph with it.

        Raises:
            ConfigError: a node that is missing, or a text that its prompt does not have.
        """
        node = graph.nodes.get(self.node)
        if self.function is not None:
            if self.node not in {tool.name for tool in graph.tools}:
                raise ConfigError(f"{self.node!r} is not a tool", hint="name one of the graph")
            function = self.function
            tools = (replace(tool, function=function) if tool.name == self.node else tool for tool in graph.tools)
            return replace(graph, tools=tuple(tools))
        if not isinstance(node, Agent):
            raise ConfigError(f"{self.node!r} is not an agent", hint="name one of the graph")
        prompt = node.prompt
        for old, new in self.replace.items():
            if old not in node.prompt:
                raise ConfigError(f"the prompt of {self.node!r} has no {old!r}", hint="give a text that it has")
            prompt = prompt.replace(old, new)
        return graph.with_prompts({self.node: prompt})


@dataclass(frozen=True, kw_only=True)
class RealSystem:
    """A healthy system, its tasks, and what can be wrong with it.

    Args:
        graph: of agents of the model `lm`.
        tasks: each with `user` and `expected`, values by slot.
        faults: one culprit each.
        part: whether methods are chosen on it or judged.
        name: of its file.
    """

    graph: Graph
    tasks: list[JsonDict]
    faults: list[PlantedFault]
    part: Part
    name: str = ""

    @property
    def prompts(self) -> dict[str, list[str]]:
        """By agent its prompts, the healthy one and then those with its faults."""
        found = {agent.name: [agent.prompt] for agent in self.graph.agents}
        for fault in self.faults:
            if fault.function is None:
                found[fault.node].append(fault.planted(self.graph).prompts[fault.node])
        return found

    def numbered_tasks(self) -> list[Task]:
        """The tasks with ids."""
        return [{"id": f"{self.name}-{number}", **task} for number, task in enumerate(self.tasks)]


def load_systems(multiwoz: Path | None = None) -> dict[str, RealSystem]:
    """The systems that come with the package, by name; that of MultiWOZ only where its data are given.

    Args:
        multiwoz: folder of the few-shot files of IC-DST, for the tasks of the system `multiwoz`.

    Raises:
        DataError: a folder without such files.
    """
    folder = files("framework.gbc.environments.realworld") / "systems"
    paths = sorted((path for path in folder.iterdir() if path.name.endswith(".yaml")), key=lambda path: path.name)
    found = {path.name.removesuffix(".yaml"): _load(path.name, path.read_text(encoding="utf-8")) for path in paths}
    without_tasks = found.pop("multiwoz")
    return found if multiwoz is None else {**found, "multiwoz": replace(without_tasks, tasks=first_turns(multiwoz))}


def choose_systems(names: Collection[str]) -> list[RealSystem]:
    """Systems that come with the package by their names, each once.

    Raises:
        ConfigError: no such system.
    """
    known = load_systems()
    for name in names:
        if name not in known:
            raise ConfigError(f"system {name!r}", hint=f"use one of {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)]


# Reading all takes most of a second.
@cache
def _load(name: str, text: str) -> RealSystem:
    return replace(parse_record(RealSystem, parse_yaml(text, name), source=name), name=name.removesuffix(".yaml"))
