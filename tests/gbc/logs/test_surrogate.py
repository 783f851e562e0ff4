"""A surrogate's reading: what it is shown, exact spans, contexts that are too short, and blame that adds up."""

from itertools import pairwise
from typing import Any

import pytest

from framework.core.errors import ConfigError, DataError
from framework.gbc.attribution.attribute import attribute
from framework.gbc.attribution.options import AttributionOptions, ConnectionOptions, GradientOptions
from framework.gbc.graph.trace import trace_from_line, trace_to_line
from framework.gbc.logs.schema import Log, Message, ToolCall
from framework.gbc.logs.surrogate import SURROGATE, SurrogateOptions, log_loss, read_log, sees
from framework.testing.language_models import tiny_local_model, tiny_tokenizer


def log_of(*messages: Message, **options: Any) -> Log:
    return Log(id="x", messages=messages, **options)


CALLING = log_of(
    Message(agent="guest", role="user", content="a hotel, please"),
    Message(agent="a clerk", content="Let me look.", tool_calls=(ToolCall(id="1", name="rooms", arguments="{}"),)),
    Message(agent="rooms", role="tool", content="the old mill", call="1"),
    Message(agent="a clerk", content="  "),
    Message(agent="the boss", content="The old mill, für €5 🙂.", reads=(2, 0)),
    task="Book a hotel.",
    prompts={"a clerk": "You book."},
    answer="old mill",
    expected="new mill",
)


def test_what_the_surrogate_is_shown():
    read = read_log(CALLING, tiny_local_model())
    assert [(step.name, step.kind) for step in read.trace.steps] == [
        ("task", "user"),
        ("guest@0", "user"),
        ("a_clerk@1", "agent"),
        ("rooms@2", "tool"),
        ("a_clerk@3", "agent"),
        ("the_boss@4", "agent"),
    ]
    assert {node: read.names[node] for node in ("a_clerk", "the_boss")} == {
        "a_clerk": "a clerk",
        "the_boss": "the boss",
    }
    assert [block.source for block in read.trace.step("a_clerk@1").blocks] == ["a_clerk@1", "task", "guest@0"]
    assert [block.source for block in read.trace.step("rooms@2").blocks] == ["a_clerk@1"]
    boss = read.trace.step("the_boss@4")
    assert [block.source for block in boss.messages] == ["task", "guest@0", "rooms@2"]
    assert read.trace.step("a_clerk@1").output == "Let me look.\nrooms({})"
    assert boss.input_text == (
        "<|im_start|>system\nYou are the boss, one of the agents that work on a task together. Read what was said and "
        "answer as the boss.<|im_end|>\n<|im_start|>user\nTask: Book a hotel.\n\nguest: a hotel, please\n\n"
        "rooms: the old mill\n\nthe boss:<|im_end|>\n<|im_start|>assistant\n"
    )
    assert read.unread == ()
    assert trace_from_line(trace_to_line(read.trace)) == read.trace


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
def test_spans_are_exact(kind):
    texts = ["You are one of the agents Read and answer " + "".join(chr(code) for code in range(32, 127))]
    model = tiny_local_model(tokenizer=tiny_tokenizer(kind=kind, texts=texts))
    read = read_log(CALLING, model)
    boss = read.trace.step("the_boss@4")
    for block in boss.blocks:
        assert boss.input_text[slice(*block.chars)] == block.text
        assert model.decode(boss.input_ids[slice(*block.tokens)]).strip() == block.text
    # The tiny tokenizer's bytes are special tokens, which are not decoded.
    assert kind == "metaspace" or model.decode(boss.output_ids) == boss.output
    # Characters of several tokens are counted once.
    for (_, stop), (start, _) in pairwise(boss.output_spans):
        assert stop <= start
    assert "".join(boss.output[slice(*span)] for span in boss.output_spans).replace(" ", "") == boss.output.replace(
        " ", ""
    )


def test_tools_without_a_call_read_the_latest_agent_and_users_read_nothing():
    log = log_of(
        Message(agent="coder", content="print(1)"),
        Message(agent="guest", role="user", content="go on"),
        Message(agent="terminal", role="tool", content="1"),
        Message(agent="terminal", role="tool", content="1", reads=(1,)),
        Message(agent="coder", content="done"),
    )
    assert [sees(log, number) for number in range(5)] == [(), (), (0,), (1,), (0, 1, 2, 3)]


def test_a_users_message_that_is_the_task_stands_for_it():
    log = log_of(Message(agent="user", role="user", content="hi\n"), Message(agent="a", content="ho"), task="hi")
    assert [step.name for step in read_log(log, tiny_local_model()).trace.steps] == ["user@0", "a@1"]


def test_one_name_in_two_roles_and_names_that_are_none():
    log = log_of(
        Message(agent="ü", role="user", content="x"),
        Message(agent="ö", content="x"),
        Message(agent="bot", role="tool", content="x"),
        Message(agent="bot", content="x"),
        Message(agent="2nd", content="x"),
    )
    read = read_log(log, tiny_local_model())
    assert [step.node for step in read.trace.steps] == ["_", "__agent", "bot", "bot_agent", "agent_2nd"]
    assert [read.names[step.node] for step in read.trace.steps] == ["ü", "ö", "bot", "bot", "2nd"]


# Contexts that are too short.


def talk(*texts: str) -> Log:
    return log_of(*(Message(agent="ab"[i % 2], content=text) for i, text in enumerate(texts)), task="say old mill")


def test_the_newest_and_the_task_are_kept():
    read = read_log(
        talk(*(f"mill {i} " + "the worker " * 20 for i in range(6))),
        tiny_local_model(),
        SurrogateOptions(max_tokens=250),
    )
    last = read.trace.step("b@5")
    kept = [block.source for block in last.messages]
    assert kept == ["task", "b@3", "a@4"]
    assert len(last.input_ids) + len(last.output_ids) <= 250
    unread = next(each for each in read.unread if each.step == "b@5")
    assert (unread.dropped, unread.shortened) == ((0, 1, 2), None)
    assert "b@5: 3 older messages dropped" in str(unread)


def test_a_newest_message_that_alone_is_too_long_keeps_its_end():
    model = tiny_local_model()
    read = read_log(talk("short", "the worker " * 200 + "END", "yes"), model, SurrogateOptions(max_tokens=150))
    last = read.trace.step("a@2")
    (block,) = [block for block in last.messages if block.source == "b@1"]
    assert block.text.endswith("worker END")
    assert 60 < len(last.input_ids) + len(last.output_ids) <= 150
    unread = {each.step: each for each in read.unread}
    assert (unread["a@2"].dropped, unread["a@2"].shortened) == ((0,), 1)
    # A quarter of the context is the answer's: its beginning.
    answer = read.trace.step("b@1")
    assert len(answer.output_ids) == 37
    assert answer.output.startswith(model.decode(answer.output_ids))
    assert unread["b@1"].answer == len(answer.output) - answer.output_spans[-1][1]
    # Cut blocks and cut outputs are still attributed.
    (found,) = attribute([read.trace], read.graph, {SURROGATE: model}, [log_loss(read)])
    assert found.gap == pytest.approx(0.0, abs=1e-9)


def test_a_context_without_room_for_the_task():
    with pytest.raises(DataError, match="message 0: prompt and task take"):
        read_log(talk("a"), tiny_local_model(), SurrogateOptions(max_tokens=40))
    with pytest.raises(ConfigError, match="answer_share 1"):
        SurrogateOptions(answer_share=1.0)


# Blame.


@pytest.mark.parametrize("scalar", ["sequence_log_prob", "finegrained"])
def test_credits_add_up_to_the_loss(scalar):
    model = tiny_local_model()
    read = read_log(CALLING, model)
    connections = ConnectionOptions(prompts=True, gradients=GradientOptions(scalar=scalar))
    (found,) = attribute(
        [read.trace], read.graph, {SURROGATE: model}, [log_loss(read)], AttributionOptions(connections=connections)
    )
    assert found.gap == pytest.approx(0.0, abs=1e-9)
    assert sum(agent.own for agent in found.agents) == pytest.approx(1.0)
    estimators = {edge.target: edge.estimator for edge in found.edges}
    assert estimators["the_boss@4"] == "gradient"
    assert estimators["rooms@2"] == "pass_through"
    # What a tool is given passes on whole to the call.
    flows = {(edge.source, edge.target): edge.credit for edge in found.edges}
    assert flows["a_clerk@1", "rooms@2"] == pytest.approx(flows["rooms@2", "the_boss@4"])


def test_the_loss_is_where_the_answer_stands():
    read = read_log(CALLING, tiny_local_model())
    loss = log_loss(read)
    (place,) = loss.places
    assert (place.step, place.expected) == ("the_boss@4", "new mill")
    assert read.trace.step(place.step).output[place.start : place.stop] == "old mill"
    assert loss.text == "Expected 'new mill', the answer was 'old mill'."
    right = read_log(log_of(*CALLING.messages, answer="x", expected="x"), tiny_local_model())
    assert log_loss(right).value == 0


def test_all_contexts_of_a_log_have_a_budget():
    words = " ".join(["north"] * 150)
    messages = tuple(Message(agent=f"a{number % 2}", content=f"{number} {words}") for number in range(8))
    log = Log(id="x", task=words, messages=messages, prompts={"a0": words})
    model = tiny_local_model()
    bounded = read_log(log, model, SurrogateOptions(log_tokens=1600))
    free = read_log(log, model, SurrogateOptions(log_tokens=10**6))
    sizes = [
        [len(step.input_ids) + len(step.output_ids) for step in read.trace.steps if step.kind == "agent"]
        for read in (bounded, free)
    ]
    assert max(sizes[0]) <= 256 < max(sizes[1])
    (last,) = [each for each in bounded.unread if each.step == "a1@7"]
    assert last.prompt > 0
    assert "characters of prompt and task left out" in str(last)
    assert not any(each.prompt for each in free.unread)
    with pytest.raises(ConfigError, match="log_tokens 0"):
        SurrogateOptions(log_tokens=0)
