"""Graphs of agents, tools and user turns: what a recipe or a few lines of Python declare.

Edges are declared where they end: a node names what it reads. Loops and branches are declared beside the nodes;
`unroll.py` makes of them the acyclic graph that runs.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast, get_args

from framework.core.errors import ConfigError
from framework.core.imports import import_object, look_in_current_folder, look_in_folder
from framework.core.io import atomic_write
from framework.gbc.graph.yaml_config import parse_record, read_yaml, to_yaml

Estimator = Literal["gradient", "pass_through", "leave_one_out", "score_function", "tool_replay"]
"""How an edge gets its weight; all but `gradient` are for edges that pass no gradient.

`tool_replay`, for tools: by counterfactual edits, the tool is run again with what its inputs should have been; by
gradients, as `pass_through`.
"""
OLD_ESTIMATORS = {"rerun": "tool_replay"}
"""Names of version 0.1, which graphs, attributions and checkpoints of that time have, by the present ones."""

ToolFunction = Callable[[Mapping[str, str]], str]
"""What a tool does: the texts that it reads, by the names of their nodes, to its output."""

_NAME = re.compile(r"[A-Za-z_][\w-]*")


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Holds when a node's output matches a regular expression somewhere.

    Args:
        source: the node.
        pattern: the expression, as `re.search` reads it.
        negate: holds when there is no match.
    """

    source: str
    pattern: str
    negate: bool = False

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(
                f"pattern {self.pattern!r} is not a regular expression ({error})", hint="correct it"
            ) from None

    def holds(self, text: str) -> bool:
        """Whether the output of `source` meets it."""
        return (re.search(self.pattern, text) is None) == self.negate


@dataclass(frozen=True, kw_only=True)
class UserTurn:
    """Text that comes with the task.

    Args:
        name: of the node.
        field: of the task that holds the text; the node's name by default.
    """

    name: str
    field: str | None = None


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A function of texts: an API, a database, a parser. No gradient passes it.

    Args:
        name: of the node.
        reads: the nodes whose outputs it is given; those that did not run are left out.
        function: the texts by node to the output; in a recipe, its import path such as `package.module.function`.
        estimator: how its incoming edges get their weights.
        when: run only if this holds.
    """

    name: str
    reads: tuple[str, ...]
    function: ToolFunction
    estimator: Estimator = "pass_through"
    when: Condition | None = None

    def __post_init__(self) -> None:
        _check_estimator(self.name, self.estimator)
        if self.estimator == "gradient":
            raise ConfigError(
                f"no gradient passes the tool {self.name!r}",
                hint="declare pass_through, leave_one_out or score_function",
            )


@dataclass(frozen=True, kw_only=True)
class Agent:
    """A prompt and a model. The prompt is the system message; what the agent reads is the user message.

    Args:
        name: of the node.
        prompt: what optimizers change.
        model: name of the model among those that the run is given.
        reads: the nodes whose outputs become blocks of its input.
        role: what it is for, in words; shown in reports and to optimizers.
        template: the user message with a `{name}` for each node of `reads`; braces are doubled to stand for
            themselves. By default a line `name: output` for each node that ran.
        max_new_tokens: bound of the output, in tokens.
        estimator: how its incoming edges get their weights; another than `gradient` for models on a server.
        when: run only if this holds.
        stop: texts that end the output where they begin; they are not part of it.
    """

    name: str
    prompt: str
    model: str
    reads: tuple[str, ...]
    role: str = ""
    template: str | None = None
    max_new_tokens: int = 256
    estimator: Estimator = "gradient"
    when: Condition | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_estimator(self.name, self.estimator)
        if "" in self.stop:
            raise ConfigError(f"agent {self.name!r} stops at an empty text", hint="leave stop out")
        if self.estimator == "tool_replay":
            raise ConfigError(f"agent {self.name!r} declares tool_replay, which is for tools", hint="use leave_one_out")
        if self.max_new_tokens < 1:
            raise ConfigError(f"agent {self.name!r}: max_new_tokens {self.max_new_tokens}", hint="use 1 or more")
        named = [source for _, source in self.pieces() if source is not None]
        if self.template is not None and sorted(named) != sorted(set(self.reads)):
            raise ConfigError(
                f"agent {self.name!r} reads {', '.join(self.reads) or 'nothing'}, its template names "
                f"{', '.join(named) or 'nothing'}",
                hint="name every node of `reads` once in the template",
            )

    def pieces(self, ran: Collection[str] | None = None) -> list[tuple[str, str | None]]:
        """The user message in order, as (literal text, None) and ("", source).

        Args:
            ran: the nodes of `reads` that have an output; all of them by default.
        """
        ran = self.reads if ran is None else ran
        if self.template is None:
            lines: list[tuple[str, str | None]] = []
            for source in self.reads:
                if source in ran:
                    lines += [(f"{source}: ", None), ("", source), ("\n", None)]
            return lines[:-1]
        try:
            parsed = list(string.Formatter().parse(self.template))
        except ValueError as error:
            hint = "double the braces that stand for themselves"
            raise ConfigError(f"agent {self.name!r}: template {self.template!r} ({error})", hint=hint) from None
        pieces: list[tuple[str, str | None]] = []
        for literal, source, _, _ in parsed:
            pieces += [(literal, None)] if literal else []
            pieces += [("", source)] if source is not None and (source in ran or source not in self.reads) else []
        return pieces


@dataclass(frozen=True, kw_only=True)
class Loop:
    """Nodes that run again and again, at most `times` times.

    A node of the body that reads itself or a later one of the body reads its output of the round before; outside, one
    reads the last round that ran.

    Args:
        body: names of the nodes, in the order of a round.
        times: the bound.
        until: no further round after one in which this holds; its source is in the body.
    """

    body: tuple[str, ...]
    times: int
    until: Condition | None = None

    def __post_init__(self) -> None:
        if self.times < 1 or not self.body:
            raise ConfigError(f"a loop over {list(self.body)} of {self.times} rounds", hint="use 1 round or more")
        if self.until is not None and self.until.source not in self.body:
            hint = f"use one of {', '.join(self.body)}"
            raise ConfigError(f"a loop ends on {self.until.source!r}, which it does not run", hint=hint)


Node = Agent | Tool | UserTurn


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A system of agents. Checked when made, but for cycles, which `unroll` finds.

    Args:
        agents: nodes that are language models.
        tools: nodes that are functions.
        users: inputs that come with a task.
        loops: bounds of the cycles; no node is in two loops.
        outputs: the nodes whose outputs are the system's; by default those that nobody reads or waits for.

    Raises:
        ConfigError: two nodes of one name, a missing upstream, an unknown name.
    """

    agents: tuple[Agent, ...]
    tools: tuple[Tool, ...] = ()
    users: tuple[UserTurn, ...] = (UserTurn(name="user"),)
    loops: tuple[Loop, ...] = ()
    outputs: tuple[str, ...] = ()
    nodes: Mapping[str, Node] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        nodes: list[Node] = [*self.users, *self.tools, *self.agents]
        for name, count in Counter(node.name for node in nodes).items():
            if count > 1:
                raise ConfigError(f"{count} nodes are called {name!r}", hint="give each its own name")
            if not _NAME.fullmatch(name):
                hint = "use letters, digits, _ and -, a letter first"
                raise ConfigError(f"a node is called {name!r}", hint=hint)
        object.__setattr__(self, "nodes", {node.name: node for node in nodes})
        for node in nodes:
            reads = reads_of(node)
            self._check_known(f"{node.name!r} reads", reads)
            if len(set(reads)) < len(reads):
                raise ConfigError(f"{node.name!r} reads a node twice", hint="name each once")
            if not isinstance(node, UserTurn) and node.when is not None:
                self._check_known(f"{node.name!r} waits for", [node.when.source])
        looped = [name for loop in self.loops for name in loop.body]
        self._check_known("a loop runs", looped)
        for name, count in Counter(looped).items():
            if count > 1 or isinstance(self.nodes[name], UserTurn):
                problem = f"{name!r} is in {count} loops" if count > 1 else f"the user turn {name!r} is in a loop"
                raise ConfigError(problem, hint="put agents and tools in one loop at most")
        self._check_known("the output is", self.outputs)
        if not self.outputs:
            read = {name for node in nodes for name in reads_of(node)}
            read |= {node.when.source for node in nodes if not isinstance(node, UserTurn) and node.when is not None}
            read |= {loop.until.source for loop in self.loops if loop.until is not None}
            ends = tuple(node.name for node in [*self.tools, *self.agents] if node.name not in read)
            if not ends:
                raise ConfigError("every node is read or waited for by another", hint="declare the outputs")
            object.__setattr__(self, "outputs", ends)

    def _check_known(self, what: str, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.nodes:
                raise ConfigError(f"{what} {name!r}, which is missing", hint=f"use one of {', '.join(self.nodes)}")

    @property
    def prompts(self) -> dict[str, str]:
        """The agents' prompts by name."""
        return {agent.name: agent.prompt for agent in self.agents}

    def with_prompts(self, prompts: Mapping[str, str]) -> "Graph":
        """The graph with other prompts for some agents.

        Raises:
            ConfigError: an agent that is not there.
        """
        for name in prompts:
            if name not in self.prompts:
                raise ConfigError(
                    f"a prompt for {name!r}, which is not an agent", hint=f"use {', '.join(self.prompts)}"
                )
        return replace(
            self, agents=tuple(replace(agent, prompt=prompts.get(agent.name, agent.prompt)) for agent in self.agents)
        )


def reads_of(node: Node) -> tuple[str, ...]:
    """The nodes that a node reads; none for a user turn."""
    return () if isinstance(node, UserTurn) else node.reads


def load_graph(path: str | Path) -> Graph:
    """A graph from a YAML file whose keys are the arguments of `Graph`; tools also from its folder and the current one.

    Raises:
        ConfigError: no such file, an unknown key, a value of the wrong type, or what `Graph` finds.
    """
    # Before the current folder: what lies beside a graph belongs to it.
    look_in_folder(Path(path).parent)
    return parse_graph(read_yaml(path), source=str(path), file=path)


def parse_graph(value: object, *, source: str = "the graph", file: str | Path | None = None) -> Graph:
    """A graph from parsed YAML, also of version 0.1; errors as in `load_graph`.

    Args:
        value: what YAML gave.
        source: what to call it in messages.
        file: that it was read from, for messages that name the line.
    """
    look_in_current_folder()
    return parse_record(Graph, _with_present_names(value), source=source, file=file)


def _with_present_names(value: object) -> object:
    """A parsed graph in which its nodes' estimators have their present names; nothing else in it is touched."""
    if not isinstance(value, Mapping):
        return value
    graph = dict(cast(Mapping[str, object], value))
    for kind in ("agents", "tools"):
        if isinstance(nodes := graph.get(kind), list):
            graph[kind] = [_present_node(node) for node in cast(list[object], nodes)]
    return graph


def _present_node(value: object) -> object:
    """A node with the present name of its estimator, and with a function as this file's parser reads it."""
    if not isinstance(value, Mapping):
        return value
    node = dict(cast(Mapping[str, object], value))
    if isinstance(estimator := node.get("estimator"), str):
        node["estimator"] = OLD_ESTIMATORS.get(estimator, estimator)
    if isinstance(function := node.get("function"), str):
        # As losses are given too.
        node["function"] = function = function.replace(":", ".", 1)
        _check_import(str(node.get("name")), function)
    return node


def _check_import(name: str, path: str) -> None:
    """Refuses a tool whose module fails with an error of its own, which the parser would let through."""
    try:
        import_object(path)
    except ConfigError as error:
        if not isinstance(error.__cause__, ImportError | AttributeError | ValueError):
            raise ConfigError(f"tool {name!r}: {error.problem}", hint="correct the module") from error


def save_graph(path: str | Path, graph: Graph) -> None:
    """Writes a graph for `load_graph`, a whole file or none; makes the folder.

    Raises:
        ConfigError: a tool whose function has no import path.
        OSError: the file cannot be written.
    """
    text = to_yaml(graph)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(Path(path)) as stream:
        stream.write(text.encode())


def _check_estimator(name: str, estimator: str) -> None:
    if estimator in OLD_ESTIMATORS:
        problem = f"{name!r}: estimator {estimator!r} has another name now"
        raise ConfigError(problem, hint=f"use {OLD_ESTIMATORS[estimator]}")
    if estimator not in get_args(Estimator):
        raise ConfigError(f"{name!r}: estimator {estimator!r}", hint=f"use one of {', '.join(get_args(Estimator))}")
