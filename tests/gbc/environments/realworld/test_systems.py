"""The systems that come with the package."""

from typing import get_args

import pytest

from framework.core.errors import ConfigError
from framework.gbc.environments.realworld.systems import FaultKind, PlantedFault, load_systems
from framework.gbc.graph.unroll import unroll


def test_the_systems_are_many_and_have_all_kinds_of_faults_and_shapes():
    systems = load_systems()
    assert len(systems) >= 6
    assert "multiwoz" not in systems
    assert {system.part for system in systems.values()} == {"choosing", "held_out"}
    assert {fault.kind for system in systems.values() for fault in system.faults} == set(get_args(FaultKind))
    graphs = [system.graph for system in systems.values()]
    assert any(graph.loops for graph in graphs)
    assert any(graph.tools for graph in graphs)
    assert any(agent.when for graph in graphs for agent in graph.agents)
    for name, system in systems.items():
        assert 3 <= len(system.graph.agents) <= 7, name
        assert all(agent.role and agent.stop for agent in system.graph.agents), name
        assert len({task["user"] for task in system.tasks}) == len(system.tasks) >= 16, name
        unroll(system.graph)
        for fault in system.faults:
            changed = fault.planted(system.graph)
            differs = [old for old, new in zip(system.graph.agents, changed.agents, strict=True) if old != new]
            differs += [old for old, new in zip(system.graph.tools, changed.tools, strict=True) if old != new]
            assert [node.name for node in differs] == [fault.node], name


def test_a_fault_that_cannot_be_planted():
    graph = load_systems()["shop"].graph
    with pytest.raises(ConfigError, match="give texts to replace or a function"):
        PlantedFault(kind="wrong_tool", node="calculator")
    with pytest.raises(ConfigError, match="the prompt of 'clerk' has no 'nowhere'"):
        PlantedFault(kind="wrong_example", node="clerk", replace={"nowhere": "x"}).planted(graph)
    with pytest.raises(ConfigError, match="'calculator' is not an agent"):
        PlantedFault(kind="wrong_example", node="calculator", replace={"a": "x"}).planted(graph)
    with pytest.raises(ConfigError, match="'clerk' is not a tool"):
        PlantedFault(kind="wrong_tool", node="clerk", function=str).planted(graph)
