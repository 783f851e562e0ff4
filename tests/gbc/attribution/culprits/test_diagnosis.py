"""Diagnoses: one sentence that names a culprit or says that it cannot tell."""

import math

import pytest

from framework.core.errors import ConfigError
from framework.gbc.attribution.attribute import attribute
from framework.gbc.attribution.culprits.diagnosis import Diagnosis, diagnose, probabilities, why_no_evidence
from framework.gbc.execution.runner import run_graph
from framework.gbc.graph.spec import Agent, Graph
from framework.gbc.graph.verbal_loss import VerbalLoss, slot_loss
from framework.testing.language_models import tiny_local_model

GRAPH = Graph(
    agents=(
        Agent(name="capital", prompt="", role="names it", model="m", reads=("user",), max_new_tokens=4),
        Agent(name="writer", prompt="", role="writes", model="m", reads=("capital",), max_new_tokens=4),
    )
)


def runs(count: int):
    tasks = [{"user": "x", "expected": {"capital": "Rome"}} for _ in range(count)]
    given = [{"capital": "ROME", "writer": "capital=ROME"}] * count
    return list(run_graph(GRAPH, {"m": tiny_local_model()}, tasks, given=given))


def test_probabilities_are_a_softmax_of_the_scores_and_several_failures_are_surer():
    weights = {"first": 2.0}
    run = {"a": {"first": 1.0}, "b": {"first": 0.0}}
    one = probabilities([run], ["a", "b", "absent"], weights)
    assert one["a"] / one["b"] == pytest.approx(math.exp(2))
    assert one["absent"] < 1e-6
    assert sum(one.values()) == pytest.approx(1.0)
    four = probabilities([run] * 4, ["a", "b", "absent"], weights)
    assert four["a"] / four["b"] == pytest.approx(math.exp(4))


def test_a_sentence_says_who_how_and_how_sure():
    sure = Diagnosis(probabilities={"a": 0.9, "b": 0.1}, method="evidence", num_runs=2, reasons=("it lied",))
    assert sure.sentence == "a is at fault (0.90 sure, by evidence from roles and messages in 2 failed runs): it lied."
    unsure = Diagnosis(probabilities={"a": 0.4, "b": 0.35, "c": 0.25}, method="evidence", num_runs=1)
    assert unsure.culprit is None
    assert str(unsure).startswith("Cannot tell who is at fault: a (0.40) or b (0.35), by evidence")


def test_evidence_names_an_agent_on_a_server_and_says_who_read_for_it():
    traces = runs(3)
    losses = [slot_loss(trace) for trace in traces]

    class Remote:
        def reply(self, requests):
            raise AssertionError

    found = diagnose(traces, GRAPH, {"m": Remote()}, losses)
    assert max(found.probabilities, key=found.probabilities.get) == "capital"
    assert "of capital, writer, which no local model answers, where their words come from alone counts" in str(found)
    found = diagnose(traces, GRAPH, {"m": Remote(), "reader": tiny_local_model()}, losses)
    assert "model 'reader' read the roles in their place" in str(found)


def test_without_evidence_there_is_credit_and_the_reason_is_said():
    traces, models = runs(1), {"m": tiny_local_model()}
    losses = [VerbalLoss(value=1.0, text="bad")]
    problem = why_no_evidence(GRAPH, models, losses)
    assert problem == "the loss does not tell what was expected"
    with pytest.raises(ConfigError, match="no evidence: the loss does not tell what was expected"):
        diagnose(traces, GRAPH, models, losses)
    found = diagnose(traces, GRAPH, models, losses, attribute(traces, GRAPH, models, losses))
    assert found.method == "gradients"
    assert "evidence was not looked for, since the loss does not tell what was expected" in str(found)
