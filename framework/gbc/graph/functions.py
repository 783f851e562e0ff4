"""Graphs from plain Python functions: what a function reads are its parameters, an agent's prompt is its docstring.

`@agent(model="small")` makes an agent of a function, `graph_of(manager, hotels, writer)` a graph of agents and
functions.
"""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import cast

from framework.core.errors import ConfigError
from framework.gbc.graph.spec import Agent, Condition, Estimator, Graph, Loop, Tool, UserTurn, reads_of

_MARK = "\x00{}\x00"
"""Stands for what a node reads while its template is found."""


def agent(
    *,
    model: str,
    prompt: str | None = None,
    role: str = "",
    max_new_tokens: int = 256,
    estimator: Estimator | None = None,
    when: Condition | None = None,
    stop: Sequence[str] = (),
) -> Callable[[Callable[..., str | None]], Agent]:
    """Makes an agent of a function: its name, what it reads (its parameters), and its message (what it returns).

    The function is called once, to see where in its text the parameters stand; one without a body gives a line
    `name: output` for each. It may not look into its parameters.

    Args:
        model: name of the model among those that the run is given.
        prompt: by default the docstring.
        role: what it is for, as its colleagues would say it.
        max_new_tokens: bound of the output, in tokens.
        estimator: how its incoming edges get their weights, as in `Agent`.
        when: run only if this holds.
        stop: texts that end the output.

    Raises:
        ConfigError: no prompt, or a function whose text is not made of its parameters as they are.
    """

    def made(function: Callable[..., str | None]) -> Agent:
        name, reads = function.__name__, _parameters(function)
        words = prompt if prompt is not None else inspect.getdoc(function)
        if not words:
            raise ConfigError(f"agent {name!r} has no prompt", hint="give it a docstring, or prompt=")
        found = Agent(
            name=name,
            prompt=words,
            model=model,
            reads=reads,
            role=role,
            template=_template(name, function, reads),
            max_new_tokens=max_new_tokens,
            when=when,
            stop=tuple(stop),
        )
        return found if estimator is None else replace(found, estimator=estimator)

    return made


def graph_of(
    *nodes: Agent | Tool | Callable[..., str], loops: Sequence[Loop] = (), outputs: Sequence[str] = ()
) -> Graph:
    """A graph of agents, tools and plain functions.

    A function is a tool of its name, which is given what its parameters name. What is read and is not a node comes with
    the task, as a field of its name; a parameter with a default that is not a node keeps it.

    Args:
        nodes: in any order.
        loops: bounds of cycles.
        outputs: the nodes whose outputs are the system's; by default those that nobody reads.

    Raises:
        ConfigError: what `Graph` finds.
    """
    names = {node.name if isinstance(node, Agent | Tool) else node.__name__ for node in nodes}
    made = [node if isinstance(node, Agent | Tool) else tool_of(node, names) for node in nodes]
    read = dict.fromkeys(source for node in made for source in reads_of(node))
    return Graph(
        agents=tuple(node for node in made if isinstance(node, Agent)),
        tools=tuple(node for node in made if isinstance(node, Tool)),
        users=tuple(UserTurn(name=source) for source in read if source not in names),
        loops=tuple(loops),
        outputs=tuple(outputs),
    )


def tool_of(function: Callable[..., str], nodes: Collection[str]) -> Tool:
    """A plain function as a tool; a parameter of a node that did not run keeps its default, or is empty.

    Raises:
        ConfigError: parameters that are not names.
    """
    given = inspect.signature(function).parameters
    required = {name for name in _parameters(function) if given[name].default is inspect.Parameter.empty}
    reads = tuple(name for name in given if name in required or name in nodes)

    def call(texts: Mapping[str, str]) -> str:
        return function(**(dict.fromkeys(required, "") | dict(texts)))

    return Tool(name=function.__name__, reads=reads, function=call)


def _parameters(function: Callable[..., object]) -> tuple[str, ...]:
    parameters = inspect.signature(function).parameters.values()
    for each in parameters:
        if each.kind not in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY):
            problem = f"{function.__name__!r} takes {each}"
            raise ConfigError(problem, hint="name each node that it reads as a parameter of its own")
    return tuple(each.name for each in parameters)


def _template(name: str, function: Callable[..., str | None], reads: Sequence[str]) -> str | None:
    """The text of the function with `{name}` for each parameter; None where it returns nothing."""
    hint = "return a text with each parameter in it once and as it is, such as an f-string"
    try:
        text = function(**{source: _MARK.format(source) for source in reads})
    except Exception as error:
        problem = f"agent {name!r}: its function raised {type(error).__name__} ({error})"
        raise ConfigError(problem, hint=hint) from error
    if text is None:
        return None
    # The annotation is the user's, and nobody has checked it.
    if not isinstance(cast(object, text), str):
        raise ConfigError(f"agent {name!r}: its function returned {type(text).__name__}, not a text", hint=hint)
    pieces = text.replace("{", "{{").replace("}", "}}").split("\x00")
    if any(text.count(_MARK.format(source)) != 1 for source in reads) or len(pieces) != 2 * len(reads) + 1:
        raise ConfigError(f"agent {name!r}: its text has not each of {', '.join(reads)} once", hint=hint)
    return "".join(f"{{{piece}}}" if number % 2 else piece for number, piece in enumerate(pieces))
