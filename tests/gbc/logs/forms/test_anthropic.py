"""Conversations with Anthropic's API: prompts, calls, results, and tools that run on the server."""

import pytest

from framework.gbc.logs.forms.anthropic import is_anthropic, logs_of_anthropic
from framework.gbc.logs.forms.reading import form_of

USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "hot", "is_error": False}
RESPONSE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [{"type": "text", "text": "Hot."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
REQUEST = {
    "model": "claude",
    "max_tokens": 9,
    "system": [{"type": "text", "text": "You help."}],
    "messages": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": [{"type": "text", "text": "I look."}, USE]},
        {"role": "user", "content": [RESULT]},
    ],
}


def said(log) -> list[tuple[str, str, str]]:
    return [(each.agent, each.role, each.text) for each in log.messages]


def test_a_request_and_its_response():
    expected = [
        ("user", "user", "Weather?"),
        ("assistant", "agent", 'I look.\nweather({"city": "Rome"})'),
        ("weather", "tool", "hot"),
        ("assistant", "agent", "Hot."),
    ]
    together = {**REQUEST, "messages": [*REQUEST["messages"], RESPONSE], "expected": "Cold.", "mistake": {"step": 2}}
    for value in ({"id": "7", "request": REQUEST, "response": RESPONSE}, together):
        assert form_of(value) == "anthropic"
        (log,) = logs_of_anthropic(value, "x")
        assert said(log) == expected
        assert log.prompts == {"assistant": "You help."}
        assert log.id == value.get("id", "x")
    assert log.expected == "Cold."
    # The prompt is not a message of the list, so numbers stay.
    assert log.mistake is not None
    assert log.mistake.step == 2


def test_tools_on_the_server_answer_in_the_middle_of_a_message():
    parts = [
        {"type": "text", "text": "I search."},
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "Rome"}},
        {
            "type": "web_search_tool_result",
            "tool_use_id": "s1",
            "content": [{"type": "web_search_result", "title": "Rome", "url": "u", "encrypted_content": "Eo8"}],
        },
        {"type": "text", "text": "Hot."},
    ]
    (log,) = logs_of_anthropic([{"role": "user", "content": "?"}, {"role": "assistant", "content": parts}], "x")
    assert said(log)[1:] == [
        ("assistant", "agent", 'I search.\nweb_search({"query": "Rome"})'),
        ("web_search", "tool", '[{"type": "web_search_result", "title": "Rome", "url": "u"}]'),
        ("assistant", "agent", "Hot."),
    ]


def test_a_tool_that_fails_says_so():
    for content, expected in ((None, "[error]"), ("no city", "[error]\nno city"), ([], "[error]")):
        result = {**RESULT, "is_error": True, "content": content}
        (log,) = logs_of_anthropic([*REQUEST["messages"][:2], {"role": "user", "content": [result]}, RESPONSE], "x")
        assert said(log)[2] == ("weather", "tool", expected)


def test_texts_of_documents_and_search_results_are_read():
    found = {
        "type": "search_result",
        "title": "Rome",
        "source": "u",
        "content": [{"type": "text", "text": "hot"}, {"type": "text", "text": "dry"}],
    }
    pieces = {"type": "content", "content": [{"type": "text", "text": "cold"}]}
    parts = [
        {"type": "document", "title": "Cities", "source": {"type": "text", "media_type": "text/plain", "data": "wet"}},
        {"type": "document", "source": pieces},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}},
        found,
        {"type": "text", "text": "Weather?"},
    ]
    value = {"system": "Help.", "messages": [{"role": "user", "content": parts}, RESPONSE]}
    (log,) = logs_of_anthropic(value, "x")
    assert log.messages[0].text == "Cities\nwet\ncold\n[document]\nRome\nhot\ndry\nWeather?"
    messages = [*REQUEST["messages"][:2], {"role": "user", "content": [{**RESULT, "content": [found]}]}, RESPONSE]
    (log,) = logs_of_anthropic(messages, "x")
    assert said(log)[2] == ("weather", "tool", "Rome\nhot\ndry")


def test_a_system_message_in_the_middle_leaves_the_prompt_where_it_is():
    middle = {"role": "system", "content": "Be short."}
    value = {"system": "Help.", "messages": [*REQUEST["messages"][:1], RESPONSE, middle, RESPONSE]}
    assert form_of(value) == "anthropic"
    (log,) = logs_of_anthropic(value, "x")
    assert log.prompts == {"assistant": "Help."}
    assert said(log)[2] == ("system", "user", "Be short.")


def test_what_is_not_such_a_conversation():
    plain = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    assert not is_anthropic(plain)
    assert is_anthropic({"system": "Help.", "messages": plain})
    assert not is_anthropic({"system": "Help.", "messages": [{"role": "system", "content": "a"}]})
    with pytest.raises(ValueError, match="no messages with the roles"):
        logs_of_anthropic({"messages": []}, "x")
    orphan = [{"role": "user", "content": [RESULT]}, {"role": "assistant", "content": "ho"}]
    with pytest.raises(ValueError, match="tool_call_id 'toolu_1' is not a call before it"):
        logs_of_anthropic(orphan, "x")
