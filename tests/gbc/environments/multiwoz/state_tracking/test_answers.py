"""Answers with placeholders, and what agents of the small graphs should say."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from framework.core.errors import ConfigError
from framework.gbc.environments.multiwoz.dataset.database import Database
from framework.gbc.environments.multiwoz.dataset.dialogues import Dialogue
from framework.gbc.environments.multiwoz.dataset.mentions import MentionReader
from framework.gbc.environments.multiwoz.losses import state_loss
from framework.gbc.environments.multiwoz.state_tracking.answers import (
    alone_targets,
    answer_tasks,
    draw_answer_tasks,
    team_targets,
    with_placeholders,
)
from framework.gbc.environments.multiwoz.state_tracking.turns import exchanges, said_change, track, tracking_metrics
from framework.gbc.environments.multiwoz.success import Answer, Judge
from framework.gbc.environments.multiwoz.system import load_system
from framework.gbc.environments.multiwoz.tasks import answer_text
from framework.gbc.execution.runner import RunOptions, run_graph
from framework.gbc.graph.trace import Trace
from framework.gbc.language_models.interface import Reply, Request
from framework.testing.language_models import tiny_local_model
from tests.gbc.environments.multiwoz.conftest import (  # noqa: F401
    database,
    dialogue,
    make_trace,
    write_release,
)

GRAPHS = Path(__file__).parents[5] / "recipes" / "gbc" / "graphs"
TARGETS = {"small": team_targets, "alone": alone_targets}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "Acorn Guest House , 154 Chesterton Road , is nice",
            "[hotel_name] , [hotel_address] , is nice",
        ),
        ("call 01223353888 , cb41da", "call [taxi_phone] , [taxi_postcode]"),
        ("tr0002 leaves at 11:50", "[train_trainid] leaves at 11:50"),
        ("your reference number is nuecbthh . goodbye", "your reference number is [taxi_reference] . goodbye"),
        ("booked . reference : AB12CD34 .", "booked . reference : [taxi_reference] ."),
        ("what is your reference ? anything else", "what is your reference ? anything else"),
        ("the reference number will be provided .", "the reference number will be provided ."),
        ("i have [hotel_name] already", "i have [hotel_name] already"),
    ],
)
def test_placeholders(database: Database, text: str, found: str):  # noqa: F811
    assert with_placeholders(text, MentionReader(database), "taxi") == found


def test_tasks_and_targets_of_turns(dialogue: Dialogue, database: Database):  # noqa: F811
    tasks = answer_tasks(dialogue, MentionReader(database))
    assert [task["reference"] for task in tasks][:2] == [
        "[hotel_name] is nice .",
        "Done , [hotel_reference] . Call [hotel_phone] .",
    ]
    assert team_targets(tasks[0]) == {
        "manager": "hotel",
        "hotel": "area=north; parking=yes; type=guesthouse",
        **dict.fromkeys(("attraction", "restaurant", "train", "taxi"), "none"),
        "responder": "[hotel_name] is nice .",
    }
    assert alone_targets(tasks[0]) == "hotel area=north; parking=yes; type=guesthouse\n[hotel_name] is nice ."
    nothing = {**tasks[0], "expected": {}}
    assert team_targets(nothing)["manager"] == "none"
    assert alone_targets(nothing).startswith("none\n")


def test_turns_are_drawn_without_replacement(dialogue: Dialogue, database: Database):  # noqa: F811
    reader = MentionReader(database)
    drawn = draw_answer_tasks([dialogue], reader, 3, seed=1)
    assert sorted(task["turn"] for task in drawn) == [0, 1, 2]
    with pytest.raises(ConfigError, match=r"4 turns to train on.*1 to 3"):
        draw_answer_tasks([dialogue], reader, 4, seed=1)


class Reciter:
    """Says the targets of the turn whose user text it reads."""

    def __init__(self, tasks: Sequence[dict], targets: Callable[[dict], dict[str, str] | str]) -> None:
        self.texts = {task["user"]: targets(task) for task in tasks}
        self.read: dict[str, list[str]] = {}

    def reply(self, requests: Sequence[Request]) -> list[Reply]:
        return [self._reply(request) for request in requests]

    def _reply(self, request: Request) -> Reply:
        self.read.setdefault(request.step, []).append(request.message)
        found = next(text for user, text in self.texts.items() if request.message.endswith(f"| {user}\n"))
        output = found if isinstance(found, str) else found[request.step]
        return Reply(
            input_text="", input_ids=(), input_spans=(), blocks=(), output=output, output_ids=(), output_spans=(),
            finish="stop",
        )  # fmt: skip


@pytest.mark.parametrize("name", ["small", "alone"])
def test_a_system_that_says_its_targets_is_right(
    name: str,
    dialogue: Dialogue,  # noqa: F811
    database: Database,  # noqa: F811
    write_release: Callable[..., Path],  # noqa: F811
):
    graph = load_system(GRAPHS / f"multiwoz_{name}.yaml", release=str(write_release()))
    model = Reciter(answer_tasks(dialogue, MentionReader(database)), TARGETS[name])
    turns = list(track(graph, {"main": model}, [dialogue]))
    assert [turn.failure for turn in turns] == [None] * 3
    assert tracking_metrics(turns)["joint_goal_accuracy"] == 1
    answers = [
        Answer(text=turn.answer, state=turn.state, booked=label.booked)
        for turn, label in zip(turns, dialogue.turns, strict=True)
    ]
    assert answers[1].text == "Done , [hotel_reference] . Call [hotel_phone] ."
    found = Judge(database).judge(dialogue.goal, answers)
    assert found.informed == {"hotel": True, "taxi": True}
    if name == "small":
        first, second, third = model.read["responder"]
        assert first.startswith("hotel: 1 found | none | ")
        # What the user says changes the state that is known so far.
        assert second.startswith("hotel: 1 found\nhotel: booked acorn guest house, reference ")
        assert third.startswith("taxi: booked, ")


def test_one_text_with_state_and_answer(make_trace: Callable[..., Trace]):  # noqa: F811
    trace = make_trace(
        {"assistant": " hotel area=north; stars=4; train day=friday\nhow about [hotel_name] ?\n"},
        expected={"hotel-area": "north", "hotel-stars": "4", "train-day": "friday"},
    )
    assert said_change(trace) == trace.task["expected"]
    assert state_loss(trace).value == 0
    assert answer_text(trace) == "how about [hotel_name] ?"
    assert answer_text(make_trace({"assistant": "none\nbye"})) == "bye"
    # Slots of one name of two domains.
    trace = make_trace({"assistant": "hotel area=north; name=acorn; train day=friday; restaurant name=b; area=south"})
    assert said_change(trace) == {
        "hotel-area": "north",
        "hotel-name": "acorn",
        "train-day": "friday",
        "restaurant-name": "b",
        "restaurant-area": "south",
    }
    # An answer of several lines, of an agent that says no state.
    assert answer_text(make_trace({"hotel": "none", "responder": "one\ntwo"})) == "one\ntwo"
    # No worker ran: what the responder says is not a state.
    trace = replace(make_trace({"responder": "hotel area=north\nwhat ?"}), skipped=("hotel", "train"))
    assert said_change(trace) == {}
    assert answer_text(trace) == "hotel area=north\nwhat ?"


def test_a_local_model_recites_the_targets(
    dialogue: Dialogue,  # noqa: F811
    database: Database,  # noqa: F811
    write_release: Callable[..., Path],  # noqa: F811
):
    model = tiny_local_model()
    graph = load_system(GRAPHS / "multiwoz_small.yaml", release=str(write_release()))
    graph = replace(graph, agents=tuple(replace(each, prompt="x") for each in graph.agents))
    tasks = answer_tasks(dialogue, MentionReader(database))
    said = [team_targets(task) for task in tasks]
    traces = list(run_graph(graph, {"main": model}, tasks, options=RunOptions(), recited=said))
    for trace, texts, exchange in zip(traces, said, exchanges(dialogue), strict=True):
        assert said_change(trace) == exchange.change
        for step in trace.steps:
            if step.kind == "agent":
                assert step.output == texts[step.node]
                assert step.output_ids == model.target_tokens(texts[step.node])
                assert step.input_ids
    long = [{**tasks[0], "user": "north " * 5000}]
    (failed,) = run_graph(graph, {"main": model}, long, recited=said[:1])
    assert failed.failure is not None
    assert "the context of the model holds" in failed.failure
