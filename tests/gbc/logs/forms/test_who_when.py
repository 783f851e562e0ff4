"""Cases of Who&When's two layouts, written here in the style of the benchmark."""

import json
from typing import Any

import pytest

from framework.core.errors import DataError
from framework.gbc.logs.forms.reading import read_form
from framework.gbc.logs.forms.who_when import log_of_case
from framework.gbc.logs.schema import Mistake

LABELS = {"mistake_agent": "Counter_Expert", "mistake_step": "2", "mistake_reason": "Counted one twice."}
CHAT: dict[str, Any] = {
    "is_correct": False,
    "question": "How many apples?",
    "question_ID": "q",
    "level": "1",
    "ground_truth": "3",
    "system_prompt": {"Counter_Expert": "You count."},
    "history": [
        {"role": "assistant", "name": "Fruit_Expert", "content": "The task: How many apples?"},
        {"role": "user", "name": "Computer_terminal", "content": "exitcode: 0"},
        {"role": "user", "name": "Counter_Expert", "content": "There are 4."},
        {"role": "user", "name": "Fruit_Expert", "content": "TERMINATE"},
    ],
    **LABELS,
}
TEAM: dict[str, Any] = {
    "is_corrected": False,
    "question": "Where?",
    "ground_truth": "Here",
    "history": [
        {"role": "human", "content": "Where?\n"},
        {"role": "Orchestrator (thought)", "content": "A plan."},
        {"role": "Orchestrator (-> WebSurfer)", "content": "Look it up."},
        {"role": "WebSurfer", "content": "A page."},
        {"role": "Orchestrator (thought)", "content": "Done.\nFINAL ANSWER: There \nEXIT"},
    ],
    "mistake_agent": "WebSurfer",
    "mistake_step": 3,
}


def test_a_group_chat():
    log = log_of_case(CHAT, id="1")
    assert [(each.agent, each.role) for each in log.messages] == [
        ("Fruit_Expert", "agent"),
        ("Computer_terminal", "tool"),
        ("Counter_Expert", "agent"),
        ("Fruit_Expert", "agent"),
    ]
    assert all(each.reads is None for each in log.messages)
    assert log.prompts == {"Counter_Expert": "You count."}
    # Not the word that ends the chat.
    assert log.output_messages == (2,)
    assert (log.task, log.expected, log.answer, log.failed) == ("How many apples?", "3", None, True)
    assert log.mistake == Mistake(agent="Counter_Expert", step=2, reason="Counted one twice.")


def test_a_team_under_an_orchestrator_that_thinks_for_itself():
    log = log_of_case(TEAM, id="1")
    assert [(each.agent, each.role) for each in log.messages] == [
        ("human", "user"),
        ("Orchestrator", "agent"),
        ("Orchestrator", "agent"),
        ("WebSurfer", "agent"),
        ("Orchestrator", "agent"),
    ]
    assert log.messages[3].reads == (0, 2)
    assert log.messages[4].reads is None
    assert (log.output_messages, log.answer) == ((4,), "There")
    assert log.mistake == Mistake(agent="WebSurfer", step=3)


def test_a_folder_in_the_order_of_its_numbers(tmp_path):
    for number in (10, 9, 1):
        (tmp_path / f"{number}.json").write_text(json.dumps(CHAT))
    assert [log.id for log in read_form(tmp_path).logs] == ["1", "9", "10"]
    assert [log.id for log in read_form(tmp_path / "9.json").logs] == ["9"]


@pytest.mark.parametrize(
    ("case", "problem"),
    [
        ([], "not a JSON object"),
        ({}, "no history"),
        ({**CHAT, "history": [{"role": "a"}]}, r"history\[0\] has no text content"),
        ({**CHAT, "history": [{"content": "a"}]}, r"history\[0\] has no name and no role"),
        ({**CHAT, "mistake_step": "two"}, "mistake_step is 'two'"),
        ({**CHAT, "history": [{"role": "human", "content": "a"}]}, "no agent's message"),
    ],
)
def test_what_is_no_case_says_why(tmp_path, case, problem):
    (tmp_path / "1.json").write_text(json.dumps(CHAT))
    (tmp_path / "2.json").write_text(json.dumps(case))
    with pytest.raises(DataError, match=problem):
        read_form(tmp_path, "who_when")
    found = read_form(tmp_path, "who_when", skip_bad=True)
    assert [log.id for log in found.logs] == ["1"]
    assert [each.number for each in found.bad] == [2]


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match=r"has no \*.json"):
        read_form(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        read_form(tmp_path / "1.json")
