"""Systems, rules and tasks: what prompts mean by hand, and that everything is a function of its seed."""

import pytest

from framework.core.errors import ConfigError
from framework.gbc.environments.microworld.rules import RuleModel, answer
from framework.gbc.environments.microworld.system import MODEL, draw_system, look_up, make_graph, name_of
from framework.gbc.environments.microworld.tasks import answer_loss, make_tasks
from framework.gbc.environments.microworld.tokenizer import make_tokenizer
from framework.gbc.execution.runner import run_graph
from framework.gbc.graph.verbal_loss import VerbalLoss
from framework.language_model.chat_tokenizer import UNKNOWN

WORKER = "worker : area from area short , price from nothing full , day from price short"
ALPHA = "alpha serves hotel"
REQUEST = "user: find me hotel-day monday hotel-area north hotel-price cheap and taxi-area west"


def test_a_worker_by_hand():
    asked = f"{ALPHA}\n{REQUEST}\nmanager: alpha hotel bravo rest"
    assert answer(WORKER, asked) == "hotel-area n hotel-price none hotel-day $1"
    resting = f"{ALPHA}\n{REQUEST}\nmanager: alpha rest bravo hotel"
    assert answer(WORKER, resting) == "hotel-area none hotel-price none hotel-day none"


def test_a_manager_by_hand():
    prompt = "manager : alpha for train , bravo for nothing , charlie for hotel"
    assert answer(prompt, REQUEST) == "alpha rest bravo rest charlie hotel"


def test_a_responder_by_hand():
    prompt = "responder : area from day , price from price , day from nothing"
    read = "alpha: hotel-area n hotel-price $1 hotel-day mon\nbravo:\nplaces: hotel-name acorn"
    assert answer(prompt, read) == "hotel-area mon hotel-price $1 hotel-day none hotel-name acorn"


def test_the_database_by_hand():
    texts = {"alpha": "hotel-area n hotel-price none", "bravo": "train-area none", "charlie": ""}
    assert look_up(texts) == "hotel-name acorn train-name none"
    assert name_of("hotel", "north") == "acorn"
    assert look_up(texts, wrong={"hotel": 1}) == "hotel-name birch train-name none"


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


def test_every_word_is_a_token():
    tokenizer = make_tokenizer()
    for seed in range(10):
        system = draw_system(seed)
        (trace,) = run_graph(make_graph(system), {MODEL: RuleModel()}, make_tasks(system, 1))
        for step in trace.steps:
            assert UNKNOWN not in tokenizer.tokenize(f"{step.input_text} {step.output}")


def test_the_number_of_workers():
    assert len(draw_system(3, num_workers=5).workers) == 5
    with pytest.raises(ConfigError, match="2 workers"):
        draw_system(3, num_workers=2)


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
