"""AutoGen's chats: who is an agent, a tool or a user, whatever the role says."""

import pytest

from framework.gbc.logs.forms.autogen import logs_of_autogen_02, logs_of_autogen_04
from framework.gbc.logs.forms.reading import form_of

GROUP = [
    {"content": "Plot the stock.", "role": "assistant", "name": "user_proxy"},
    {"content": "Coder, go.", "role": "user", "name": "planner"},
    {"content": "```python\nplot()\n```", "role": "user", "name": "coder"},
    {"content": "exitcode: 1 (execution failed)\nno plot", "role": "user", "name": "user_proxy"},
    {"content": "Try again.", "role": "user", "name": "user_proxy"},
    {"content": "TERMINATE", "role": "user", "name": "planner"},
]
CALLED = [
    {"content": "Weather?", "role": "user", "name": "boss"},
    {
        "content": "",
        "role": "assistant",
        "name": "helper",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
    },
    {
        "content": "hot",
        "role": "tool",
        "name": "boss",
        "tool_responses": [{"tool_call_id": "c1", "role": "tool", "content": "hot"}],
    },
    {"content": "It is hot.", "role": "user", "name": "helper"},
    {"content": "Thanks.", "role": "assistant", "name": "boss"},
]


def who(log) -> list[tuple[str, str]]:
    return [(each.agent, each.role) for each in log.messages]


@pytest.mark.parametrize("value", [GROUP, {"chat_id": 1, "chat_history": GROUP, "summary": "", "cost": {}}])
def test_names_say_who_speaks(value):
    assert form_of(value) == "autogen_0.2"
    (log,) = logs_of_autogen_02(value, "x")
    assert who(log) == [
        ("user_proxy", "user"),
        ("planner", "agent"),
        ("coder", "agent"),
        ("user_proxy", "tool"),
        ("user_proxy", "user"),
        ("planner", "agent"),
    ]
    assert log.task == "Plot the stock."
    assert log.output_messages == (2,)


def test_tools_and_a_first_speaker_that_is_an_agent():
    (log,) = logs_of_autogen_02({"chat_history": CALLED, "id": "a", "mistake": {"step": 3}}, "x")
    assert who(log) == [
        ("boss", "user"),
        ("helper", "agent"),
        ("weather", "tool"),
        ("helper", "agent"),
        ("boss", "agent"),
    ]
    assert log.messages[1].text == "weather({})"
    assert log.mistake is not None
    assert log.mistake.step == 3
    (log,) = logs_of_autogen_02(CALLED, "x", ["helper"])
    assert who(log)[-1] == ("boss", "user")


def test_a_chat_without_names_is_kept_as_the_users_agent_saw_it():
    chat = {"chat_history": [{"content": "hi", "role": "assistant"}, {"content": "ho", "role": "user"}], "summary": ""}
    (log,) = logs_of_autogen_02(chat, "x")
    assert [(each.agent, each.content) for each in log.messages] == [("user", "hi"), ("assistant", "ho")]


def said(source: str, content: object, kind: str = "TextMessage", **more: object) -> dict:
    return {"source": source, "models_usage": None, "metadata": {}, "content": content, "type": kind, **more}


CALL = {"id": "c1", "arguments": '{"city": "Rome"}', "name": "weather"}
EVENTS = [
    said("user", "Weather?"),
    said("researcher", "I look.", "ThoughtEvent"),
    said("researcher", [CALL], "ToolCallRequestEvent"),
    said(
        "researcher",
        [{"content": "hot", "name": "weather", "call_id": "c1", "is_error": False}],
        "ToolCallExecutionEvent",
    ),
    said("manager", ["writer"], "SelectSpeakerEvent"),
    said("researcher", "Over to you.", "HandoffMessage", target="writer", context=[]),
    said("writer", ["See", {"data": "iVBO"}], "MultiModalMessage"),
    said("user_proxy", "No.", "TextMessage"),
    said("writer", {"answer": "hot"}, "StructuredMessage"),
]


def test_a_tool_that_fails_says_so():
    result = {"content": "no city", "name": "weather", "call_id": "c1", "is_error": True}
    events = [*EVENTS[:3], said("researcher", [result], "ToolCallExecutionEvent")]
    (log,) = logs_of_autogen_04(events, "x")
    assert log.messages[-1].content == "[error]\nno city"


@pytest.mark.parametrize(
    "value",
    [
        EVENTS,
        {"messages": EVENTS, "stop_reason": "x"},
        {
            "type": "TeamState",
            "version": "1.0.0",
            "agent_states": {
                "writer": {"type": "ChatAgentContainerState", "agent_state": {}, "message_buffer": []},
                "RoundRobinGroupChatManager": {"type": "RoundRobinManagerState", "message_thread": EVENTS},
            },
        },
    ],
)
def test_messages_results_and_saved_teams(value):
    assert form_of(value) == "autogen"
    (log,) = logs_of_autogen_04(value, "x")
    assert [(each.agent, each.role, each.text) for each in log.messages] == [
        ("user", "user", "Weather?"),
        ("researcher", "agent", 'I look.\nweather({"city": "Rome"})'),
        ("weather", "tool", "hot"),
        ("researcher", "agent", "Over to you."),
        ("writer", "agent", "See\n[image]"),
        ("user_proxy", "user", "No."),
        ("writer", "agent", '{"answer": "hot"}'),
    ]


def test_what_is_not_understood():
    with pytest.raises(ValueError, match=r"messages\[1\]: a message of the type 'NewEvent'"):
        logs_of_autogen_04([said("user", "a"), said("b", 3, "NewEvent")], "x")
    with pytest.raises(ValueError, match="no list of messages with a source"):
        logs_of_autogen_04([{"role": "user"}], "x")
