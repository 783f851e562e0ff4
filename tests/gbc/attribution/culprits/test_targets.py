"""What steps should have said, by hand."""

import re
import tracemalloc
from collections.abc import Mapping

import pytest

from framework.gbc.attribution.culprits.targets import Told, find_targets
from framework.gbc.execution.runner import run_graph
from framework.gbc.graph.spec import Agent, Graph, Tool
from framework.gbc.graph.verbal_loss import slot_loss
from framework.testing.language_models import tiny_local_model


def agent(name: str, *reads: str) -> Agent:
    return Agent(name=name, prompt="", model="m", reads=reads, max_new_tokens=4)


def targets_of(graph: Graph, said: Mapping[str, str], *, user: str, **expected: str) -> Told:
    (trace,) = run_graph(graph, {"m": tiny_local_model()}, [{"user": user, "expected": expected}], given=[said])
    return find_targets(graph, trace, slot_loss(trace))


def test_sayers_and_whoever_owed_a_value_should_have_said_the_expected_one():
    graph = Graph(
        agents=(agent("name", "user"), agent("age", "user"), agent("clerk", "name", "age"), agent("writer", "clerk"))
    )
    said = {"name": "ANN", "age": "45", "clerk": "name=Anita; age=45", "writer": "name=Anita; age=45"}
    told = targets_of(graph, said, user="Ann, 45", name="Ann", age="45")
    assert told.targets == {"writer": "name=Ann; age=45", "clerk": "name=Ann; age=45", "name": "Ann"}
    assert (told.right, told.num_wrong, told.explained) == ({"45"}, 1, set())


def double(texts: Mapping[str, str]) -> str:
    """Twice the first number."""
    return str(2 * int("".join(texts.values())))


@pytest.mark.parametrize(("read", "explained"), [("two and 4", True), ("two and 5", False)])
def test_a_tool_is_explained_by_a_word_that_its_author_had_read(read: str, explained: bool):
    tool = Tool(name="tool", reads=("clerk",), function=double)
    graph = Graph(agents=(agent("clerk", "user"), agent("writer", "tool")), tools=(tool,))
    told = targets_of(graph, {"clerk": "3", "writer": "total=6"}, user=read, total="8")
    assert told.targets["tool"] == "8"
    assert told.explained == ({"tool"} if explained else set())
    assert told.targets.get("clerk") == ("4" if explained else None)


def product(texts: Mapping[str, str]) -> str:
    """Of the first two numbers."""
    left, right = "".join(texts.values()).split(" * ")
    return str(int(left) * int(right))


def test_of_a_word_that_an_author_said_twice_one_is_exchanged():
    tool = Tool(name="tool", reads=("clerk",), function=product)
    graph = Graph(agents=(agent("clerk", "user"), agent("writer", "tool")), tools=(tool,))
    told = targets_of(graph, {"clerk": "9 * 9", "writer": "total=81"}, user="9 for 3 each", total="27")
    assert told.explained == {"tool"}
    assert told.targets["clerk"] == "3 * 9"


def test_an_input_of_a_tool_is_followed_back_to_who_misled_its_author():
    tool = Tool(name="tool", reads=("clerk",), function=product)
    graph = Graph(agents=(agent("reader", "user"), agent("clerk", "reader"), agent("writer", "tool")), tools=(tool,))
    said = {"reader": "number=9; price=9", "clerk": "9 * 9", "writer": "total=81"}
    told = targets_of(graph, said, user="9 for 3 each", total="27")
    path = told.paths[told.num_wrong]
    assert (path.wrong.said, path.wrong.expected) == ("9", "3")
    assert (path.sayers, path.told) == ({"clerk", "reader"}, set())


def calculate(texts: Mapping[str, str]) -> str:
    """The sum or the product of two numbers."""
    left, sign, right = "".join(texts.values()).split()
    return str(int(left) * int(right) if sign == "*" else int(left) + int(right))


def test_a_tool_that_was_told_to_add_may_have_been_to_multiply():
    tool = Tool(name="tool", reads=("clerk",), function=calculate)
    graph = Graph(agents=(agent("clerk", "user"), agent("writer", "tool")), tools=(tool,))
    told = targets_of(graph, {"clerk": "6 + 8", "writer": "total=14"}, user="6 for 8 each", total="48")
    assert told.explained == {"tool"}
    assert told.targets["clerk"] == "6 * 8"


def first_number(texts: Mapping[str, str]) -> str:
    """Raises AttributeError of a text that begins with none."""
    found = re.match(r"\d+", "".join(texts.values()))
    return found.group()  # pyright: ignore[reportOptionalMemberAccess]


def test_a_tool_may_raise_anything_of_a_text_that_nobody_gave_it():
    tool = Tool(name="tool", reads=("clerk",), function=first_number)
    graph = Graph(agents=(agent("clerk", "user"), agent("writer", "tool")), tools=(tool,))
    told = targets_of(graph, {"clerk": "3", "writer": "total=3"}, user="two and 4", total="4")
    assert told.targets["clerk"] == "4"


def test_of_long_messages_no_more_texts_are_made_than_are_tried():
    asked: list[str] = []

    def length(texts: Mapping[str, str]) -> str:
        asked.append("")
        return str(len("".join(texts.values())))

    graph = Graph(
        agents=(agent("clerk", "user"), agent("writer", "tool")),
        tools=(Tool(name="tool", reads=("clerk",), function=length),),
    )
    # 10 MB of words in the place of others.
    clerk, user = (" ".join(f"{letter}{number}" for number in range(400)) for letter in "ab")
    tracemalloc.start()
    targets_of(graph, {"clerk": clerk, "writer": f"total={len(clerk)}"}, user=user, total="-1")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(asked) == 2001
    assert most < 40e6
