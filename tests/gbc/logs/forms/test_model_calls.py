"""From calls of models to a log: what is the same message, and what came from outside."""

from framework.gbc.logs.forms.model_calls import ModelCall, log_of_calls

LONG = "The Alexander is a cheap hotel."


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


def test_a_message_that_was_given_before_or_made_before_stands_once():
    calls = [
        ModelCall(agent="a", given=[user("yes"), assistant("so"), user("yes")], said=assistant(LONG)),
        # An agent's answer given to another as a user's message, and the same user's message once more.
        ModelCall(agent="b", given=[user(LONG), user("yes")], said=assistant("End.")),
    ]
    log = log_of_calls(calls, id="x")
    assert [(each.agent, each.role, each.content, each.reads) for each in log.messages] == [
        ("user", "user", "yes", None),
        ("a", "agent", "so", (0,)),
        ("user", "user", "yes", None),
        ("a", "agent", LONG, (0, 1, 2)),
        ("b", "agent", "End.", (0, 3)),
    ]
    assert log.task == "yes"


def test_an_answer_inside_of_a_later_message_is_read_from_its_author():
    calls = [
        ModelCall(agent="a", given=[{"role": "system", "content": "Look."}, user("Find.")], said=assistant(LONG)),
        ModelCall(agent="b", given=[user(f"Context: {LONG} Write.")], said=assistant("End.")),
        ModelCall(agent="a", given=[{"role": "system", "content": "Look. Today."}, user("Find.")], said=assistant("x")),
    ]
    log = log_of_calls(calls, id="x")
    assert log.messages[2].content == "Context: [message 1 of a] Write."
    assert log.messages[3].reads == (1, 2)
    assert log.prompts == {"a": "Look."}


def test_two_answers_to_calls_of_one_id():
    call = {"id": "c", "function": {"name": "t", "arguments": "{}"}}
    first = [
        user("go"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "1"},
    ]
    second = [
        *first,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "2"},
    ]
    log = log_of_calls([ModelCall(agent="a", given=second, said=assistant("End."))], id="x")
    assert [each.content for each in log.messages if each.role == "tool"] == ["1", "2"]
