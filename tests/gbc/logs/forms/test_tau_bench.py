"""Episodes of tau-bench and simulations of tau2-bench."""

import json

import pytest

from framework.gbc.logs.forms.reading import form_of, read_form
from framework.gbc.logs.forms.tau_bench import logs_of_tau2_bench, logs_of_tau_bench

TRAJ = [
    {"role": "system", "content": "# Policy"},
    {"role": "user", "content": "Cancel my order."},
    {
        "content": None,
        "role": "assistant",
        "tool_calls": [
            {"function": {"arguments": '{"id": "7"}', "name": "cancel"}, "id": "call_1", "type": "function"}
        ],
        "function_call": None,
    },
    {"role": "tool", "tool_call_id": "call_1", "name": "cancel", "content": "cancelled"},
    {"content": "Done.", "role": "assistant", "tool_calls": None, "function_call": None},
    {"role": "user", "content": "###STOP###"},
]
EPISODE = {"task_id": 3, "reward": 0.0, "info": {"task": {"user_id": "a"}}, "traj": TRAJ, "trial": 1}


def test_a_file_of_episodes(tmp_path):
    (tmp_path / "gpt.json").write_text(json.dumps([EPISODE, {**EPISODE, "reward": 1.0, "trial": 2}]))
    found = read_form(tmp_path / "gpt.json")
    assert found.form == "tau_bench"
    assert [(log.id, log.correct) for log in found.logs] == [("3-1", False), ("3-2", True)]
    log = found.logs[0]
    assert [(each.agent, each.role, each.text) for each in log.messages] == [
        ("user", "user", "Cancel my order."),
        ("assistant", "agent", 'cancel({"id": "7"})'),
        ("cancel", "tool", "cancelled"),
        ("assistant", "agent", "Done."),
        ("user", "user", "###STOP###"),
    ]
    assert log.prompts == {"assistant": "# Policy"}
    assert log.output_messages == (3,)


def test_an_episode_that_broke_off():
    with pytest.raises(ValueError, match=r"an episode without messages, its info is .*quota"):
        logs_of_tau_bench({**EPISODE, "traj": [], "info": {"error": "quota"}}, "x")


def call(id: str, name: str, requestor: str) -> dict:
    return {"id": id, "name": name, "arguments": {"on": True}, "requestor": requestor}


def answer(id: str, content: str, requestor: str) -> dict:
    return {"id": id, "role": "tool", "content": content, "requestor": requestor, "error": False, "turn_idx": 0}


SIMULATION = {
    "id": "5ad1",
    "task_id": "[mobile]1",
    "trial": 0,
    "seed": 3,
    "termination_reason": "user_stop",
    "reward_info": {"reward": 0.0, "db_check": None},
    "messages": [
        {"role": "assistant", "content": "Hi! How can I help you?", "tool_calls": None, "turn_idx": 0},
        {"role": "user", "content": "No data.", "tool_calls": None, "turn_idx": 1},
        {"role": "assistant", "content": None, "tool_calls": [call("a1", "line", "assistant")], "turn_idx": 2},
        answer("a1", "active", "assistant"),
        {"role": "assistant", "content": "Toggle it.", "tool_calls": None, "turn_idx": 4},
        {"role": "user", "content": None, "tool_calls": [call("u1", "toggle", "user")], "turn_idx": 5},
        {"role": "tool", "tool_messages": [answer("u1", "on", "user")]},
        {"role": "user", "content": "It works.", "tool_calls": None, "turn_idx": 7},
        {"role": "assistant", "content": "Bye.", "tool_calls": None, "turn_idx": 8},
    ],
}


def test_the_agent_does_not_see_the_users_tools():
    file = {"timestamp": "t", "info": {}, "tasks": [], "simulations": [SIMULATION]}
    assert form_of(file) == form_of(SIMULATION) == "tau2_bench"
    (log,) = logs_of_tau2_bench(file, "x")
    assert (log.id, log.correct) == ("[mobile]1-0", False)
    assert [(each.agent, each.role, each.text) for each in log.messages][2:7] == [
        ("assistant", "agent", 'line({"on": true})'),
        ("line", "tool", "active"),
        ("assistant", "agent", "Toggle it."),
        ("user", "user", 'toggle({"on": true})'),
        ("user's tool", "user", "on"),
    ]
    assert log.messages[8].reads == (0, 1, 2, 3, 4, 7)
    (without,) = logs_of_tau2_bench({**SIMULATION, "messages": SIMULATION["messages"][:5]}, "x")
    assert without.messages[4].reads is None


def test_an_unknown_role():
    with pytest.raises(ValueError, match=r"messages\[0\]: role 'judge'"):
        logs_of_tau2_bench({**SIMULATION, "messages": [{"role": "judge"}]}, "x")
