"""Runs: order, batches, branches, loops, failures; a scripted model says what it is told to."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from framework.core.errors import ConfigError
from framework.gbc.execution.runner import RunOptions, run_graph
from framework.gbc.graph.spec import Agent, Condition, Graph, Loop, Tool, UserTurn
from framework.gbc.graph.trace import trace_from_line, trace_to_line
from framework.gbc.language_models.interface import Reply, Request
from framework.gbc.language_models.prompt_encoding import render_blocks
from framework.testing.language_models import tiny_local_model


class Scripted:
    """Answers by a function of the agent's prompt and message; remembers the batches."""

    def __init__(self, answer: Callable[[str, str], str]) -> None:
        self.answer = answer
        self.batches: list[list[str]] = []

    def reply(self, requests: Sequence[Request]) -> list[Reply]:
        self.batches.append([request.step for request in requests])
        replies = []
        for request in requests:
            text, blocks = render_blocks(lambda prompt, message: f"{prompt}|{message}", request)
            output = self.answer(request.prompt, request.message)
            replies.append(
                Reply(
                    input_text=text,
                    input_ids=(),
                    input_spans=(),
                    blocks=blocks,
                    output=output,
                    output_ids=(),
                    output_spans=(),
                    finish="stop",
                )
            )
        return replies


def agent(name: str, *reads: str, model: str = "m", **options: Any) -> Agent:
    return Agent(name=name, prompt=name, model=model, reads=reads, **options)


def shout(texts: Mapping[str, str]) -> str:
    return json.dumps(texts).upper()


def echo(prompt: str, message: str) -> str:
    return f"{prompt}({message})"


TASKS = [{"id": "one", "user": "hi"}, {"id": "two", "user": "ho"}]


def test_agents_that_share_a_model_share_batches_over_tasks():
    graph = Graph(agents=(agent("a", "user"), agent("b", "user"), agent("c", "a", "b"), agent("d", "a", model="other")))
    model, other = Scripted(echo), Scripted(echo)
    first, second = run_graph(graph, {"m": model, "other": other}, TASKS)
    assert model.batches == [["a", "b", "a", "b"], ["c", "c"]]
    assert other.batches == [["d", "d"]]
    assert first.step("c").output == "c(a: a(user: hi)\nb: b(user: hi))"
    assert [block.source for block in first.step("c").messages] == ["a", "b"]
    assert first.outputs == ("c", "d")
    assert first.output == "c(a: a(user: hi)\nb: b(user: hi))\nd(a: a(user: hi))"
    assert (second.id, second.step("a").output) == ("two", "a(user: ho)")
    assert trace_from_line(trace_to_line(first)) == first


def test_tools_and_templates():
    ask = agent("ask", "user", "tool", template="[{tool}] {{{user}}}")
    tool = Tool(name="tool", reads=("user",), function=shout)
    (trace,) = run_graph(Graph(agents=(ask,), tools=(tool,)), {"m": Scripted(echo)}, TASKS[:1])
    assert trace.step("tool").output == '{"USER": "HI"}'
    assert trace.step("tool").blocks[0].text == "hi"
    assert trace.output == 'ask([{"USER": "HI"}] {hi})'


def test_a_branch_runs_what_its_condition_asks_for():
    def route(prompt: str, message: str) -> str:
        return ("left" if "hi" in message else "right") if prompt == "manager" else echo(prompt, message)

    graph = Graph(
        agents=(
            agent("manager", "user"),
            agent("left", "user", when=Condition(source="manager", pattern="left")),
            agent("right", "user", when=Condition(source="manager", pattern="left", negate=True)),
            agent("after", "right"),
            agent("end", "left", "after"),
        )
    )
    first, second = run_graph(graph, {"m": Scripted(route)}, TASKS)
    assert first.output == "end(left: left(user: hi))"
    # What reads only what did not run does not run.
    assert first.skipped == ("right", "after")
    assert second.output == "end(after: after(right: right(user: ho)))"
    assert first.step("left").controls == ("manager",)


def test_a_loop_ends_when_its_condition_holds():
    graph = Graph(
        agents=(agent("draft", "user", "review"), agent("review", "draft"), agent("end", "review")),
        loops=(Loop(body=("draft", "review"), times=4, until=Condition(source="review", pattern="good")),),
    )

    def review(prompt: str, message: str) -> str:
        if prompt == "review":
            return "good" if message.count("bad") == 1 else "bad"
        return echo(prompt, message)

    model = Scripted(review)
    (trace,) = run_graph(graph, {"m": model}, TASKS[:1])
    assert [step.name for step in trace.steps] == ["user", "draft@1", "review@1", "draft@2", "review@2", "end"]
    assert trace.step("draft@2").messages[1].source == "review@1"
    assert trace.output == "end(review: good)"
    assert trace.skipped == ("draft@3", "review@3", "draft@4", "review@4")


def test_an_output_can_be_given():
    graph = Graph(agents=(agent("a", "user"), agent("b", "a")))
    model = Scripted(echo)
    plain, changed = run_graph(graph, {"m": model}, [TASKS[0]] * 2, given=[{}, {"a": "no"}])
    assert plain.output == "b(a: a(user: hi))"
    assert changed.output == "b(a: no)"
    assert changed.step("a").finish == "given"
    assert model.batches[0] == ["a"]
    with pytest.raises(ConfigError, match="given for the step 'z'"):
        list(run_graph(graph, {"m": model}, TASKS, given=[{"z": ""}, {}]))


def broken(texts: Mapping[str, str]) -> str:
    if texts["user"] == "hi":
        raise KeyError("no such hotel")
    return "fine"


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        (
            Graph(agents=(agent("a", "t"),), tools=(Tool(name="t", reads=("user",), function=broken),)),
            "tool 't' raised KeyError ('no such hotel')",
        ),
        (Graph(agents=(agent("quiet", "user"),)), "agent 'quiet' says nothing"),
        (Graph(agents=(agent("a", "user", when=Condition(source="user", pattern="ho")),)), "no output node ran"),
        (
            Graph(agents=(agent("a", "user", "first"),), users=(UserTurn(name="user"), UserTurn(name="first"))),
            "task 'one' has no text 'first'",
        ),
    ],
)
def test_a_task_that_fails_says_why_and_the_others_go_on(graph, words):
    def answer(prompt: str, message: str) -> str:
        return " \n" if prompt == "quiet" and "hi" in message else "fine"

    failed, other = run_graph(graph, {"m": Scripted(answer)}, [TASKS[0], {**TASKS[1], "first": "x"}])
    assert words in failed.failure
    assert failed.outputs == ()
    assert other.failure is None
    assert trace_from_line(trace_to_line(failed)) == failed


def test_an_empty_answer_may_be_kept():
    graph = Graph(agents=(agent("a", "user"), agent("b", "a")))
    model = Scripted(lambda prompt, message: "" if prompt == "a" else echo(prompt, message))
    (trace,) = run_graph(graph, {"m": model}, TASKS[:1], options=RunOptions(on_empty="keep"))
    assert trace.output == "b(a: )"


def test_a_model_that_is_missing():
    with pytest.raises(ConfigError, match="agent 'a' uses model 'm', which is missing"):
        next(run_graph(Graph(agents=(agent("a", "user"),)), {"x": Scripted(echo)}, TASKS))


def test_a_prompt_that_does_not_fit_fails_its_task_alone():
    graph = Graph(agents=(agent("a", "user", max_new_tokens=2),))
    long, short = run_graph(graph, {"m": tiny_local_model()}, [{"user": "x " * 600}, {"user": "x"}])
    assert "the context of the model holds 512" in long.failure
    assert (short.id, short.failure) == ("1", None)


def test_the_size_of_batches_changes_nothing():
    graph = Graph(
        agents=(
            *(agent(f"w{i}", "user", max_new_tokens=4) for i in range(3)),
            agent("join", "w0", "w1", "w2", max_new_tokens=4),
        )
    )
    tasks = [{"user": "word " * (1 + 3 * i)} for i in range(5)]
    options = RunOptions(on_empty="keep", seed=3)
    whole = list(run_graph(graph, {"m": tiny_local_model(temperature=1.0)}, tasks, options=options))
    single = RunOptions(on_empty="keep", seed=3, tasks_at_once=1)
    alone = list(run_graph(graph, {"m": tiny_local_model(temperature=1.0, batch_size=1)}, tasks, options=single))
    assert whole == alone


def test_half_of_a_character_fails_its_task_alone():
    def half(texts: Mapping[str, str]) -> str:
        return "\udc00" if "tool" in texts["user"] else "fine"

    tools = (Tool(name="t", reads=("user",), function=half),)
    graph = Graph(agents=(agent("a", "user", "t"),), tools=tools)
    model = Scripted(lambda prompt, message: "\ud83d" if "said" in message else "well")
    users = ["x \ud83d", "tool", "said", "good"]
    tasks = [{"id": str(place), "user": user} for place, user in enumerate(users)]
    tasks.append({"id": "\ud83d", "user": "good", "expected": "right"})
    tasks.append({"id": "label", "user": "good", "expected": ["\ud83d"]})
    found = {trace.id: trace for trace in run_graph(graph, {"m": model}, tasks)}
    assert found["3"].output == "well"
    failures = {
        "0": "task '0' has half of a character (\\ud83d) at place 2 of user: give whole characters",
        "1": "tool 't' returned half of a character (\\udc00) at place 0",
        "2": "agent 'a' says half of a character (\\ud83d) at place 0",
        "\ud83d": "task '\\ud83d' has half of a character (\\ud83d) at place 0 of id",
        "label": "at place 0 of expected[0]",
    }
    for id, words in failures.items():
        assert words in (found[id].failure or "")
        # Traces of failed tasks are kept, and read again by --resume.
        assert trace_from_line(trace_to_line(found[id])) == found[id]
