"""Wrong values, and how they came into the output."""

from collections.abc import Mapping

from framework.gbc.attribution.culprits.error_paths import error_paths, has_words, tells, wrong_values
from framework.gbc.execution.runner import run_graph
from framework.gbc.graph.spec import Agent, Graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import VerbalLoss, exact_match
from framework.testing.language_models import tiny_local_model


def agent(name: str, *reads: str) -> Agent:
    return Agent(name=name, prompt="", model="m", reads=reads, max_new_tokens=4)


def run(graph: Graph, said: Mapping[str, str]) -> Trace:
    (trace,) = run_graph(graph, {"m": tiny_local_model()}, [{"user": "figs, pears", "expected": {}}], given=[said])
    return trace


def test_a_whole_output_without_places_is_a_wrong_value():
    trace = Trace(id="0", task={"expected": "yes"}, steps=(), skipped=(), outputs=())
    assert wrong_values(trace, exact_match(trace)) == [("", "yes")]
    assert wrong_values(trace, VerbalLoss(value=1.0, text="bad")) == []
    assert has_words("a=north; b", "north")
    assert not has_words("northern", "north")


def test_an_error_is_followed_back_to_who_had_been_told_what_was_expected():
    chain = Graph(agents=(agent("lister", "user"), agent("last", "lister"), agent("writer", "last")))
    trace = run(chain, {"lister": "figs, pears", "last": "figs", "writer": "to=figs"})
    assert error_paths(trace, [("figs", "pears")]) == [{"writer", "last"}]
    # Nobody was told of plums: the error is followed to who said it first, which is not the user.
    assert error_paths(trace, [("figs", "plums")]) == [{"writer", "last", "lister"}]
    assert error_paths(trace, [("", "pears")]) == [set()]


def test_the_expected_value_as_a_part_of_the_wrong_one_tells_nobody_of_it():
    assert tells("figs, pears", "pears", "figs")
    assert tells("figs", "figs", "")
    assert not tells("Asia (AS)", "Asia", "Asia (AS)")
