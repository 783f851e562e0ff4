"""Crews' outputs with and without their messages, and the log of a crew."""

import pytest

from framework.gbc.logs.forms.crewai import logs_of_crewai
from framework.gbc.logs.forms.reading import form_of

FOUND = "The Alexander is cheap and in the centre."
TASKS = [
    {"description": "Find a hotel.", "name": None, "expected_output": "A name.", "raw": FOUND, "agent": "Researcher\n"},
    {"description": "Write to the guest.", "expected_output": None, "raw": "Take the Acorn.", "agent": "Writer"},
]
OUTPUT = {"raw": "Take the Acorn.", "pydantic": None, "json_dict": None, "tasks_output": TASKS, "token_usage": {}}


def test_a_task_reads_all_results_before_it():
    assert form_of(OUTPUT) == "crewai"
    (log,) = logs_of_crewai(OUTPUT, "x")
    assert [(each.agent, each.role, each.reads) for each in log.messages] == [
        ("task", "user", None),
        ("Researcher", "agent", (0,)),
        ("task", "user", None),
        ("Writer", "agent", (1, 2)),
    ]
    assert log.task == "" or log.messages[0].content == "Find a hotel.\n\nA name."


def test_messages_say_what_was_read():
    asked = f"Current Task: Write.\nThis is the context you're working with:\n{FOUND}"
    messages = [
        [{"role": "system", "content": "You are Researcher."}, {"role": "user", "content": "Current Task: Find."}],
        [{"role": "system", "content": "You are Writer."}, {"role": "user", "content": asked}],
    ]
    messages[0].append({"role": "assistant", "content": f"Final Answer: {FOUND}"})
    tasks = [{**task, "messages": each} for task, each in zip(TASKS, messages, strict=True)]
    tasks[0]["messages"][-1]["content"] = FOUND
    (log,) = logs_of_crewai({**OUTPUT, "tasks_output": tasks}, "x")
    assert log.prompts == {"Researcher": "You are Researcher.", "Writer": "You are Writer."}
    assert [each.reads for each in log.messages] == [None, (0,), None, (1, 2)]
    assert log.messages[2].content.endswith("working with:\n[message 1 of Researcher]")
    assert log.messages[3].content == "Take the Acorn."


def event(task: str, agent: str, status: str, **more: str) -> dict:
    return {
        "timestamp": "2025-01-01 10:00:00",
        "task_name": None,
        "task": task,
        "agent": agent,
        "status": status,
        **more,
    }


def test_a_log_of_two_runs():
    run = [
        event("Find.", "Researcher", "started"),
        event("Find.", "Researcher", "completed", output=FOUND),
        event("Write.", "Writer", "started"),
        event("Write.", "Writer", "completed", output="Acorn."),
    ]
    assert form_of([*run, *run]) == "crewai"
    one, two = logs_of_crewai([*run, *run], "x")
    assert (one.id, two.id) == ("x", "x-2")
    assert one.messages == two.messages
    assert [each.content for each in one.messages] == ["Find.", FOUND, "Write.", "Acorn."]


def test_a_task_without_a_result():
    with pytest.raises(ValueError, match="task 0 has no text 'raw'"):
        logs_of_crewai({"tasks_output": [{"description": "a", "agent": "b", "raw": None}]}, "x")
    with pytest.raises(ValueError, match="neither a crew's output"):
        logs_of_crewai({"tasks_output": []}, "x")
