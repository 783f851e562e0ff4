"""Graphs from plain functions: parameters, docstrings, templates, and what is refused."""

from typing import Any

import pytest

from framework.core.errors import ConfigError
from framework.gbc.graph.functions import agent, graph_of
from framework.gbc.graph.spec import Agent, Loop, UserTurn


@agent(model="small", role="says what is wanted", stop=["\n"], max_new_tokens=9)
def manager(user):
    """Say what the user wants."""


def hotels(manager: str, area: str = "north") -> str:
    return f"{manager} in the {area}"


@agent(model="large", prompt="Write.", estimator="leave_one_out")
def writer(hotels, manager):
    return f'{{"found": "{hotels}"}}, wanted: {manager}'


def test_a_graph_of_functions():
    assert manager == Agent(
        name="manager",
        prompt="Say what the user wants.",
        model="small",
        reads=("user",),
        role="says what is wanted",
        stop=("\n",),
        max_new_tokens=9,
    )
    graph = graph_of(writer, hotels, manager)
    assert [node.name for node in graph.agents] == ["writer", "manager"]
    assert graph.users == (UserTurn(name="user"),)
    assert graph.outputs == ("writer",)
    (tool,) = graph.tools
    assert tool.reads == ("manager",)
    assert tool.function({"manager": "cheap"}) == "cheap in the north"
    # What did not run is empty.
    assert tool.function({}) == " in the north"
    assert writer.template == '{{"found": "{hotels}"}}, wanted: {manager}'
    assert writer.estimator == "leave_one_out"
    said = ["Acorn" if source == "hotels" else "cheap" if source else literal for literal, source in writer.pieces()]
    assert "".join(said) == '{"found": "Acorn"}, wanted: cheap'


def test_a_parameter_with_a_default_reads_a_node_of_its_name():
    def area(user: str) -> str:
        return "south"

    graph = graph_of(manager, hotels, area)
    assert graph.tools[0].reads == ("manager", "area")
    assert graph.tools[0].function({"manager": "cheap", "area": "south"}) == "cheap in the south"


def test_loops_and_outputs():
    @agent(model="m", prompt="Draft.")
    def draft(user, review):
        pass

    @agent(model="m", prompt="Review.")
    def review(draft):
        pass

    graph = graph_of(draft, review, loops=[Loop(body=("draft", "review"), times=2)], outputs=["draft"])
    assert (graph.loops[0].times, graph.outputs) == (2, ("draft",))


def counts(user: str) -> Any:
    return len(user)


def test_what_is_refused():
    with pytest.raises(ConfigError, match="agent 'silent' has no prompt: give it a docstring"):

        @agent(model="m")
        def silent(user):
            pass

    with pytest.raises(ConfigError, match="agent 'short': its text has not each of user once"):

        @agent(model="m", prompt="p")
        def short(user):
            return user[:2]

    with pytest.raises(ConfigError, match="agent 'broken': its function raised ZeroDivisionError"):

        @agent(model="m", prompt="p")
        def broken(user):
            return f"{user} {1 / 0}"

    with pytest.raises(ConfigError, match="agent 'counts': its function returned int, not a text"):
        agent(model="m", prompt="p")(counts)

    def many(*texts: str) -> str:
        return ""

    with pytest.raises(ConfigError, match=r"'many' takes \*texts"):
        graph_of(many)
