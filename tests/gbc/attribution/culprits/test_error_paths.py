"""Wrong values, and how they came into the output."""

import time
from collections.abc import Mapping

from framework.gbc.attribution.culprits.error_paths import (
    WrongValue,
    error_path,
    exchanged,
    has_words,
    heard,
    sources,
    wrong_values,
)
from framework.gbc.execution.runner import run_graph
from framework.gbc.graph.spec import Agent, Graph
from framework.gbc.graph.trace import Trace, given_step, message_block
from framework.gbc.graph.verbal_loss import Place, VerbalLoss, exact_match, slot_loss
from framework.testing.language_models import tiny_local_model


def agent(name: str, *reads: str) -> Agent:
    return Agent(name=name, prompt="", model="m", reads=reads, max_new_tokens=4)


def run(graph: Graph, said: Mapping[str, str]) -> Trace:
    (trace,) = run_graph(graph, {"m": tiny_local_model()}, [{"user": "figs, pears", "expected": {}}], given=[said])
    return trace


def test_a_whole_output_without_places_is_a_wrong_value():
    trace = Trace(id="0", task={"expected": "yes"}, steps=(), skipped=(), outputs=())
    assert wrong_values(trace, exact_match(trace)) == [WrongValue(said="", expected="yes")]
    assert wrong_values(trace, VerbalLoss(value=1.0, text="bad")) == []
    assert has_words("a=north; b", "north")
    assert not has_words("northern", "north")


def test_wrong_and_missing_values_have_the_names_of_their_fields():
    chain = Graph(agents=(agent("writer", "user"),))
    trace = run(chain, {"writer": "from=figs; day=May"})
    trace.task["expected"] = {"from": "pears", "to": "figs", "day": "May"}
    wrong, missing = wrong_values(trace, slot_loss(trace))
    assert (wrong.said, wrong.expected, wrong.field, wrong.others) == ("figs", "pears", "from", {"to", "day"})
    assert (missing.said, missing.expected, missing.field, missing.others) == ("", "figs", "to", {"from", "day"})


def test_an_error_is_followed_back_to_who_had_been_told_what_was_expected():
    chain = Graph(agents=(agent("lister", "user"), agent("last", "lister"), agent("writer", "last")))
    trace = run(chain, {"lister": "figs, pears", "last": "figs", "writer": "to=figs"})
    path = error_path(trace, WrongValue(said="figs", expected="pears"), trace.outputs)
    assert (path.sayers, path.told, path.owing) == ({"writer", "last"}, {"last"}, set())
    # Nobody was told of plums: the error is followed to who said it first, which is not the user.
    path = error_path(trace, WrongValue(said="figs", expected="plums"), trace.outputs)
    assert (path.sayers, path.told) == ({"writer", "last", "lister"}, set())
    assert error_path(trace, WrongValue(said="", expected="pears"), trace.outputs).sayers == set()
    assert heard(trace, ["writer"]) == ["last", "lister", "user"]


def test_whoever_was_to_say_a_field_owed_it_though_the_next_made_up_another_value():
    graph = Graph(agents=(agent("day", "user"), agent("part", "user"), agent("writer", "day", "part")))
    trace = run(graph, {"day": "Friday", "part": "Friday", "writer": "part=tooth; day=Friday"})
    wrong = WrongValue(said="tooth", expected="foot", field="part", others=frozenset({"day"}))
    path = error_path(trace, wrong, trace.outputs)
    assert (path.sayers, path.owing) == ({"writer"}, {"part"})
    named, others = sources(trace, trace.step("writer"), wrong)
    assert [step.name for step in named] == [step.name for step in others] == ["part"]


def test_the_same_word_in_another_field_is_not_followed():
    graph = Graph(agents=(agent("guest", "user"), agent("date", "user"), agent("writer", "guest", "date")))
    trace = run(graph, {"guest": "Ann", "date": "Ann", "writer": "guest=Ann; date=Ann"})
    wrong = WrongValue(said="Ann", expected="May", field="date", others=frozenset({"guest"}))
    assert error_path(trace, wrong, trace.outputs).sayers == {"writer", "date"}


def test_the_label_before_a_message_names_its_field():
    text = "Note. Date: x\nGuest: y z"
    blocks = tuple(message_block(name, name, start=text.index(name)) for name in "xyz")
    said = [given_step(name, node=name, kind="agent", output=name) for name in "xyz"]
    writer = given_step("writer", node="writer", kind="agent", output="date=x", input_text=text, blocks=blocks)
    trace = Trace(id="0", task={}, steps=(*said, writer), skipped=(), outputs=("writer",))
    wrong = WrongValue(said="x", expected="May", field="date", others=frozenset({"guest"}))
    named, others = sources(trace, writer, wrong)
    assert [step.name for step in named] == [step.name for step in others] == ["x"]
    named, _ = sources(trace, writer, WrongValue(said="y", expected="Ann", field="guest"))
    assert [step.name for step in named] == ["y", "z"]


def test_a_message_with_the_field_tells_what_stands_there_and_no_more():
    swapped = WrongValue(said="45", expected="Ann", field="name")
    assert swapped.said_in("name=45; age=Ann")
    assert not swapped.told_in("name=45; age=Ann")
    assert swapped.told_in("Ann is here")
    assert swapped.corrected("name=45; age=45") == "name=Ann; age=45"
    assert swapped.corrected("45") == "45"


def test_the_expected_value_as_a_part_of_the_wrong_one_tells_nobody_of_it():
    assert WrongValue(said="figs", expected="pears").told_in("figs, pears")
    assert WrongValue(said="", expected="figs").told_in("figs")
    assert not WrongValue(said="Asia (AS)", expected="Asia").told_in("Asia (AS)")


def test_of_two_values_the_words_count_in_which_they_differ():
    wrong = WrongValue(said="Dear Mrs Ann", expected="Dear Ann")
    assert wrong.said_in("Mrs Ann")
    assert not wrong.said_in("Ann")
    assert wrong.exchange("Mrs Ann") == ("Mrs", "")
    assert exchanged(" Mrs Ann", dict([wrong.exchange("Mrs Ann")])) == " Ann"
    assert wrong.exchange("Dear Mrs Ann!") == ("Dear Mrs Ann", "Dear Ann")
    assert WrongValue(said="Dear Ann", expected="Dear Eve").exchange("Ann") == ("Ann", "Eve")
    # Half of what is lacking tells of it.
    assert WrongValue(said="Hello", expected="Dear Ann").told_in("Ann")
    assert exchanged("a b", {"a": "b", "b": "a"}) == "b a"


def test_the_label_of_a_value_that_follows_a_document_in_one_line():
    text = "a b c d e " * 20_000
    trace = run(Graph(agents=(agent("writer", "user"),)), {"writer": f"{text}; to: figs{text}"})
    start = len(text) + 6
    places = (
        Place(step="writer", start=start, stop=start + 4, expected="pears"),
        Place(step="writer", start=start + 4, stop=start + 5, expected=""),
    )
    started = time.process_time()
    found = wrong_values(trace, VerbalLoss(value=1.0, text="", places=places))
    assert time.process_time() - started < 5
    assert [each.field for each in found] == ["to", ""]
