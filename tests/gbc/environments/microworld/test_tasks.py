"""Tasks are functions of their seeds and solved by the rules; the loss, by hand."""

import pytest

from framework.gbc.environments.microworld.rules import RuleModel
from framework.gbc.environments.microworld.system import MODEL, draw_system, make_graph
from framework.gbc.environments.microworld.tasks import answer_loss, make_tasks
from framework.gbc.execution.runner import run_graph
from framework.gbc.graph.verbal_loss import VerbalLoss


@pytest.mark.parametrize("seed", range(8))
def test_systems_and_tasks_are_functions_of_their_seeds(seed: int):
    system = draw_system(seed)
    assert system == draw_system(seed)
    graph = make_graph(system)
    assert 5 <= len(graph.agents) <= 7
    assert 1 <= len(graph.tools) <= 2
    tasks = make_tasks(system, 5, seed=seed)
    assert tasks == make_tasks(system, 5, seed=seed)
    assert len({task["user"] for task in tasks}) == 5
    losses = [answer_loss(trace) for trace in run_graph(graph, {MODEL: RuleModel()}, tasks)]
    assert losses == [VerbalLoss(value=0.0, text="")] * 5


def test_the_loss_by_hand():
    system = draw_system(0)
    (task,) = make_tasks(system, 1)
    (trace,) = run_graph(make_graph(system), {MODEL: RuleModel()}, [task])
    first, second, *rest = task["expected"]
    others = {name: task["expected"][name] for name in rest}
    wrong = {**trace.task, "expected": {first: "acorn", **others, "taxi-nothing": "x"}}
    loss = answer_loss(type(trace)(**{**vars(trace), "task": wrong}))
    # One wrong, one missing, one extra.
    assert loss.value == pytest.approx(3 / (len(others) + 3))
    assert [place.expected for place in loss.places] == ["acorn", ""]
    assert f"{second} was given" in loss.text
    assert "taxi-nothing should be 'x', it was missing" in loss.text
