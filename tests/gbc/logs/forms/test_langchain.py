"""LangChain's three writings of a message, and states of LangGraph."""

import pytest

from framework.gbc.logs.forms.langchain import logs_of_langchain
from framework.gbc.logs.forms.reading import form_of

CALL = {"name": "weather", "args": {"city": "Rome"}, "id": "c1", "type": "tool_call"}
REST = {"additional_kwargs": {}, "response_metadata": {}, "id": None}
DUMPED = [
    {"content": "You help.", "type": "system", "name": None, **REST},
    {"content": "Weather?", "type": "human", "name": None, **REST},
    {"content": "I look.", "type": "ai", "name": "researcher", "tool_calls": [CALL], "invalid_tool_calls": [], **REST},
    {"content": "hot", "type": "tool", "name": "weather", "tool_call_id": "c1", "status": "success", **REST},
    {"content": "Hot.", "type": "ai", "name": "writer", "tool_calls": [], "invalid_tool_calls": [], **REST},
]
CLASSES = {"system": "SystemMessage", "human": "HumanMessage", "ai": "AIMessage", "tool": "ToolMessage"}


def constructor(message: dict) -> dict:
    path = ["langchain", "schema", "messages", CLASSES[message["type"]]]
    return {"lc": 1, "type": "constructor", "id": path, "kwargs": message}


@pytest.mark.parametrize(
    "value",
    [
        DUMPED,
        [constructor(each) for each in DUMPED],
        [{"type": each["type"], "data": each} for each in DUMPED],
        {"values": {"messages": DUMPED}, "next": [], "config": {}},
        {"messages": DUMPED, "remaining_steps": 3},
    ],
)
def test_every_writing_is_the_same_log(value):
    assert form_of(value) == "langchain"
    (log,) = logs_of_langchain(value, "x")
    assert [(each.agent, each.role, each.text, each.call) for each in log.messages] == [
        ("user", "user", "Weather?", None),
        ("researcher", "agent", 'I look.\nweather({"city": "Rome"})', None),
        ("weather", "tool", "hot", "c1"),
        ("writer", "agent", "Hot.", None),
    ]
    assert log.prompts == {"researcher": "You help.", "writer": "You help."}


def test_a_tool_that_fails_says_so():
    (log,) = logs_of_langchain([*DUMPED[:3], {**DUMPED[3], "status": "error"}, DUMPED[4]], "x")
    assert log.messages[2].content == "[error]\nhot"


def test_calls_stand_once_and_wrong_ones_are_kept():
    use = {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Rome"}}
    wrong = {"name": "sea", "args": "{city", "id": "c2", "error": "not JSON", "type": "invalid_tool_call"}
    parts = ["So: ", {"type": "text", "text": "I look."}, use]
    said = {"content": parts, "type": "ai", "name": None, "tool_calls": [CALL], "invalid_tool_calls": [wrong], **REST}
    (log,) = logs_of_langchain([DUMPED[1], said], "x")
    assert log.messages[1].text == 'So: \nI look.\nweather({"city": "Rome"})\nsea({city)'


def test_an_agent_that_speaks_as_a_human():
    passed_on = {"content": "It is hot.", "type": "human", "name": "researcher", **REST}
    (log,) = logs_of_langchain([*DUMPED, passed_on], "x")
    assert (log.messages[-1].agent, log.messages[-1].role) == ("researcher", "agent")
    unknown = [{**passed_on, "name": name} for name in ("coder", "critic")]
    with pytest.raises(ValueError, match="coder, critic speak as users"):
        logs_of_langchain([*DUMPED, *unknown], "x")
    (log,) = logs_of_langchain([*DUMPED, *unknown], "x", ["critic"])
    assert [each.role for each in log.messages[-2:]] == ["user", "agent"]


def test_what_is_not_understood():
    with pytest.raises(ValueError, match=r"messages\[1\]: type 'remove'"):
        logs_of_langchain([DUMPED[1], {"content": "", "type": "remove", "id": "1"}], "x")
