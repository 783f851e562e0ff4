"""Graphs: what is declared and what is refused."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from framework.core.errors import ConfigError
from framework.gbc.graph.spec import Agent, Condition, Graph, Loop, Tool, UserTurn, load_graph, parse_graph
from framework.gbc.graph.unroll import unroll


def agent(name: str, *reads: str, **options: Any) -> Agent:
    return Agent(name=name, prompt=f"You are {name}.", model="m", reads=reads, **options)


def as_json(texts: Mapping[str, str]) -> str:
    return json.dumps(texts)


RECIPE = """
users: [{name: user}, {name: again, field: second}]
agents:
  - {name: manager, prompt: Route., model: small, reads: [user], role: routes}
  - {name: hotel, prompt: Hotels., model: small, reads: [user, manager], when: {source: manager, pattern: hotel}}
  - name: responder
    prompt: Answer.
    model: large
    reads: [hotel, lookup, again]
    template: "{hotel} {{x}} {lookup}{again}"
    estimator: leave_one_out
tools: [{name: lookup, reads: [manager], function: json.dumps, estimator: score_function}]
"""


def test_a_recipe_and_the_same_in_python(tmp_path):
    path = tmp_path / "graph.yaml"
    path.write_text(RECIPE)
    graph = load_graph(path)
    assert graph == Graph(
        users=(UserTurn(name="user"), UserTurn(name="again", field="second")),
        agents=(
            Agent(name="manager", prompt="Route.", model="small", reads=("user",), role="routes"),
            Agent(
                name="hotel",
                prompt="Hotels.",
                model="small",
                reads=("user", "manager"),
                when=Condition(source="manager", pattern="hotel"),
            ),
            Agent(
                name="responder",
                prompt="Answer.",
                model="large",
                reads=("hotel", "lookup", "again"),
                template="{hotel} {{x}} {lookup}{again}",
                estimator="leave_one_out",
            ),
        ),
        tools=(Tool(name="lookup", reads=("manager",), function=json.dumps, estimator="score_function"),),
    )
    assert graph.outputs == ("responder",)
    assert graph.agents[2].pieces() == [
        ("", "hotel"),
        (" {", None),
        ("x}", None),
        (" ", None),
        ("", "lookup"),
        ("", "again"),
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"agnets": []}, "agnets"),
        ({"agents": [{"name": "a"}]}, "prompt"),
        ({"agents": [{"name": "a", "prompt": "", "model": "m", "reads": [], "max_new_tokens": "x"}]}, "max_new_tokens"),
        ({"agents": [{"name": "a", "prompt": "", "model": "m", "reads": [], "estimator": "guess"}]}, "estimator"),
        ({"tools": [{"name": "t", "reads": [], "function": "no.such.thing"}]}, "function"),
    ],
)
def test_recipes_that_are_refused(change, words):
    good = {"agents": [{"name": "a", "prompt": "", "model": "m", "reads": ["user"]}]}
    parse_graph(good)
    with pytest.raises(ConfigError, match=words):
        parse_graph({**good, **change})


def test_a_graph_of_version_0_1_has_the_old_name_of_an_estimator():
    node = {"name": "look", "function": "string.capwords", "reads": ["user"], "estimator": "rerun"}
    graph = parse_graph({"agents": [{"name": "a", "prompt": "Say.", "model": "m", "reads": ["look"]}], "tools": [node]})
    assert graph.tools[0].estimator == "tool_replay"


def test_what_a_tools_function_is_given_is_its_own(tmp_path):
    (tmp_path / "own_tool.py").write_text(
        "class Look:\n"
        "    def __init__(self, estimator: str): self.estimator = estimator\n"
        "    def __call__(self, texts: dict[str, str]) -> str: return self.estimator\n"
    )
    sys.path.append(str(tmp_path))
    function = {"class_path": "own_tool.Look", "init_args": {"estimator": "rerun"}}
    node = {"name": "look", "function": function, "reads": ["user"], "estimator": "rerun"}
    try:
        graph = parse_graph(
            {"agents": [{"name": "a", "prompt": "Say.", "model": "m", "reads": ["look"]}], "tools": [node]}
        )
    finally:
        sys.path.remove(str(tmp_path))
    assert graph.tools[0].estimator == "tool_replay"
    assert graph.tools[0].function({}) == "rerun"


def test_loops_in_a_recipe():
    graph = parse_graph(
        {
            "agents": [{"name": "a", "prompt": "", "model": "m", "reads": ["user", "a"]}],
            "loops": [{"body": ["a"], "times": 2, "until": {"source": "a", "pattern": "done", "negate": True}}],
            "outputs": ["a"],
        }
    )
    assert graph.loops == (Loop(body=("a",), times=2, until=Condition(source="a", pattern="done", negate=True)),)
    assert [step.name for step in unroll(graph).steps] == ["user", "a@1", "a@2"]


def test_a_recipe_that_is_missing(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_graph(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Graph(agents=(agent("a", "gone"),)), "'a' reads 'gone', which is missing"),
        (lambda: Graph(agents=(agent("a"), agent("a"))), "2 nodes are called 'a'"),
        (lambda: Graph(agents=(agent("a@2"),)), "called 'a@2'"),
        (lambda: Graph(agents=(agent("a"),), outputs=("b",)), "the output is 'b'"),
        (lambda: Graph(agents=(agent("a", "user", "user"),)), "reads a node twice"),
        (lambda: Graph(agents=(agent("a", when=Condition(source="b", pattern="x")),)), "waits for 'b'"),
        (lambda: Graph(agents=(agent("a"),), loops=(Loop(body=("b",), times=2),)), "a loop runs 'b'"),
        (lambda: Graph(agents=(agent("a"),), loops=(Loop(body=("user",), times=2),)), "user turn 'user' is in a loop"),
        (lambda: Graph(agents=(agent("a"),), loops=(Loop(body=("a", "a"), times=2),)), "in 2 loops"),
        (lambda: Graph(agents=(agent("a", "b"), agent("b", "a"))), "every node is read"),
        (lambda: Loop(body=("a",), times=0), "0 rounds"),
        (lambda: Loop(body=("a",), times=2, until=Condition(source="b", pattern="x")), "does not run"),
        (lambda: Condition(source="a", pattern="("), "regular expression"),
        (lambda: agent("a", "user", template="no {one}"), "template names one"),
        (lambda: agent("a", "user", template="{user"), "template"),
        (lambda: agent("a", max_new_tokens=0), "max_new_tokens 0"),
        (lambda: Tool(name="t", reads=(), function=as_json, estimator="gradient"), "no gradient passes"),
        (lambda: Graph(agents=(agent("a"),)).with_prompts({"b": ""}), "'b', which is not an agent"),
    ],
)
def test_what_cannot_be_declared(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_prompts_are_changed_in_a_copy():
    graph = Graph(agents=(agent("a", "user"), agent("b", "a")))
    changed = graph.with_prompts({"b": "New."})
    assert changed.prompts == {"a": "You are a.", "b": "New."}
    assert graph.prompts["b"] == "You are b."


def test_a_tool_beside_the_graph_is_found_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "system"
    folder.mkdir()
    (folder / "tool_beside_graph.py").write_text("def shout(texts):\n    return str(texts).upper()\n")
    (folder / "graph.yaml").write_text(
        "agents: [{name: a, prompt: P, model: m, reads: [user, t], stop: ['###']}]\n"
        "tools: [{name: t, reads: [user], function: tool_beside_graph.shout}]\n"
    )
    monkeypatch.chdir(tmp_path)
    graph = load_graph("system/graph.yaml")
    assert graph.tools[0].function({"user": "x"}) == "{'USER': 'X'}"
    assert graph.agents[0].stop == ("###",)
    with pytest.raises(ConfigError, match="agent 'a' stops at an empty text"):
        Agent(name="a", prompt="P", model="m", reads=("user",), stop=("",))


def test_tools_that_cannot_be_imported(tmp_path: Path):
    graph = "agents: [{name: a, prompt: p, model: m, reads: [t]}]\ntools: [{name: t, reads: [user], function: %s}]\n"
    (tmp_path / "tools_of_test.py").write_text("def f(texts):\n    return ''\n")
    (tmp_path / "broken_of_test.py").write_text("def f(:\n")
    (tmp_path / "ending_of_test.py").write_text("raise SystemExit(3)\n")
    path = tmp_path / "g.yaml"
    for function in ("tools_of_test.f", "tools_of_test:f"):
        path.write_text(graph % function)
        assert load_graph(path).tools[0].function({}) == ""
    for function, words in (
        ("nothere.f", r"line 2: tools.0.function: 'nothere.f' cannot be imported \(No module named 'nothere'\): give"),
        ("tools_of_test.g", r"'tools_of_test.g' cannot be imported \(module 'tools_of_test' has no attribute 'g'\)"),
        ("broken_of_test.f", r"tool 't': 'broken_of_test.f' cannot be imported \(SyntaxError: .*: correct the module"),
        ("ending_of_test.f", r"tool 't': 'ending_of_test.f' cannot be imported \(SystemExit: 3\): correct the module"),
    ):
        path.write_text(graph % function)
        with pytest.raises(ConfigError, match=words):
            load_graph(path)
