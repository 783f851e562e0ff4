"""Damages of real systems, drawn by a model that knows the answers."""

from dataclasses import replace

import pytest

from framework.core.errors import ConfigError
from framework.gbc.environments.realworld.prompt_repair import draw_damages
from framework.gbc.environments.realworld.systems import MODEL, PlantedFault, RealSystem
from framework.gbc.graph.spec import Agent, Graph
from framework.gbc.language_models.interface import Reply, Request


class Obedient:
    """Says what it read where its prompt is good, and nonsense where it is bad."""

    def reply(self, requests: list[Request]) -> list[Reply]:
        """The answers to requests."""
        return [_reply(each) for each in requests]


def _reply(request: Request) -> Reply:
    said = request.message.rpartition("=")[2].strip() if "good" in request.prompt else "?"
    return Reply(
        input_text=request.message,
        input_ids=(),
        input_spans=(),
        blocks=(),
        output=f"x={said}" if request.step == "b" else said,
        output_ids=(),
        output_spans=(),
        finish="stop",
    )


def system(name: str) -> RealSystem:
    first = Agent(name="a", prompt="good", model=MODEL, reads=("user",), max_new_tokens=3, template="u={user}")
    last = Agent(name="b", prompt="good", model=MODEL, reads=("a",), max_new_tokens=3, template="a={a}")
    faults = [PlantedFault(kind="wrong_example", node=node, replace={"good": "bad"}) for node in ("a", "b")]
    tasks = [{"user": str(number), "expected": {"x": str(number)}} for number in range(4)]
    return RealSystem(graph=Graph(agents=(first, last)), tasks=tasks, faults=faults, part="choosing", name=name)


def test_damages_of_two_systems_in_turns():
    model = Obedient()
    damages = draw_damages(model, [system("one"), system("two")], 3, num_tasks=2)
    assert [(each.culprit, each.healthy, each.faulty) for each in damages] == [("a", 1, 0), ("b", 1, 0), ("b", 1, 0)]
    assert damages[0].candidates == {"a": ["good", "bad"], "b": ["good", "bad"]}
    assert [task["user"] for task in damages[0].held_out] == ["0", "2"]


def test_too_few_damages():
    with pytest.raises(ConfigError, match="9 damages, the systems have 2"):
        draw_damages(Obedient(), [system("one")], 9)
    with pytest.raises(ConfigError, match="0 damages"):
        draw_damages(Obedient(), [system("one")], 0)
    unharmed = replace(system("one"), faults=[])
    with pytest.raises(ConfigError, match="1 damages, the systems have 0"):
        draw_damages(Obedient(), [unharmed], 1)
