"""How loops and branches unroll: steps, levels and edges by hand."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from framework.core.errors import ConfigError
from framework.gbc.graph.spec import Agent, Condition, Graph, Loop, Tool
from framework.gbc.graph.unroll import unroll


def agent(name: str, *reads: str, **options: Any) -> Agent:
    return Agent(name=name, prompt=f"You are {name}.", model="m", reads=reads, **options)


def as_json(texts: Mapping[str, str]) -> str:
    return json.dumps(texts)


def test_a_cycle_needs_a_bound():
    agents = (agent("draft", "user", "review"), agent("review", "draft"), agent("end", "review"))
    with pytest.raises(ConfigError, match=r"a cycle without a bound: (draft -> review|review -> draft)"):
        unroll(Graph(agents=agents))
    plan = unroll(Graph(agents=agents, loops=(Loop(body=("draft", "review"), times=2),)))
    reads = {step.name: dict(step.reads) for step in plan.steps}
    assert reads == {
        "user": {},
        "draft@1": {"user": ("user",)},
        "review@1": {"draft": ("draft@1",)},
        "draft@2": {"user": ("user",), "review": ("review@1",)},
        "review@2": {"draft": ("draft@2",)},
        "end": {"review": ("review@2", "review@1")},
    }
    assert [[step.name for step in level] for level in plan.levels] == [
        ["user"],
        ["draft@1"],
        ["review@1"],
        ["draft@2"],
        ["review@2"],
        ["end"],
    ]


def test_an_agent_that_reads_itself():
    graph = Graph(agents=(agent("a", "user", "a"),), outputs=("a",), loops=(Loop(body=("a",), times=3),))
    plan = unroll(graph)
    assert [step.name for step in plan.steps] == ["user", "a@1", "a@2", "a@3"]
    assert plan.outputs == (("a@3", "a@2", "a@1"),)
    assert plan.steps[1].reads == {"user": ("user",)}


def test_workers_of_one_level_run_together():
    workers = tuple(agent(f"w{i}", "user") for i in range(3))
    plan = unroll(Graph(agents=(*workers, agent("join", "w0", "w1", "w2"))))
    assert [len(level) for level in plan.levels] == [1, 3, 1]


def test_edges_say_how_they_are_estimated():
    branch = Condition(source="a", pattern="yes")
    graph = Graph(
        agents=(agent("a", "user"), agent("b", "t", when=branch), agent("c", "b", estimator="leave_one_out")),
        tools=(Tool(name="t", reads=("a",), function=as_json, estimator="score_function"),),
    )
    assert {(e.source, e.target, e.kind): e.estimator for e in unroll(graph).edges} == {
        ("user", "a", "message"): "gradient",
        ("a", "t", "message"): "score_function",
        ("t", "b", "message"): "gradient",
        ("a", "b", "control"): "pass_through",
        ("b", "c", "message"): "leave_one_out",
    }
