"""Evidence by hand: where wrong values come from, what should have been said, and what a model makes of it."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from framework.gbc.attribution.culprits.evidence import Evidence, gather_evidence
from framework.gbc.execution.runner import run_graph
from framework.gbc.graph.spec import Agent, Condition, Graph, Loop
from framework.gbc.graph.verbal_loss import slot_loss
from framework.testing.language_models import tiny_local_model


def agent(name: str, *reads: str, **options: Any) -> Agent:
    return Agent(name=name, prompt="", role=f"does {name}", model="m", reads=reads, max_new_tokens=4, **options)


def evidence_of(graph: Graph, said: Mapping[str, str], *, user: str = "", **expected: str) -> dict[str, Evidence]:
    """The evidence of a run in which all agents said what is given, without any model."""
    (trace,) = run_graph(graph, {"m": tiny_local_model()}, [{"user": user, "expected": expected}], given=[said])
    (found,) = gather_evidence([trace], graph, {}, [slot_loss(trace)])
    assert (found.passes, found.tokens) == (0, 0)
    return found.nodes


FAN_IN = Graph(agents=(agent("capital", "user"), agent("tongue", "user"), agent("writer", "capital", "tongue")))


def test_who_makes_up_a_wrong_value_and_who_passes_it_on():
    said = {"capital": "ROME", "tongue": "Italian", "writer": "capital=ROME; tongue=Italian"}
    found = evidence_of(FAN_IN, said, user="Italy", capital="Rome", tongue="Italian")
    assert (found["capital"].made_up, found["capital"].target) == (1.0, "Rome")
    assert found["writer"].made_up == 0.0
    assert found["writer"].target == "capital=Rome; tongue=Italian"
    # What is right of another field is no error.
    assert found["tongue"] == Evidence(right=True)


def test_a_writer_that_swaps_had_read_what_was_expected():
    said = {"capital": "Rome", "tongue": "Italian", "writer": "capital=Italian; tongue=Rome"}
    found = evidence_of(FAN_IN, said, user="Italy", capital="Rome", tongue="Italian")
    assert found["writer"].lost == pytest.approx(1.0)
    assert found["capital"].lost == found["tongue"].lost == 0.0
    assert found["writer"].is_output
    assert not found["capital"].is_output
    # What they said was right where it belongs: neither is on the path of the error.
    assert found["capital"] == found["tongue"] == Evidence()


def test_an_error_is_followed_back_to_who_had_been_told_what_was_expected():
    chain = Graph(agents=(agent("lister", "user"), agent("last", "lister"), agent("writer", "last")))
    said = {"lister": "figs, pears", "last": "figs", "writer": "to=figs"}
    found = evidence_of(chain, said, user="figs, pears", to="pears")
    assert (found["last"].lost, found["last"].made_up, found["last"].target) == (1.0, 0.0, "pears")
    assert found["lister"] == Evidence()
    # The expected value as a part of the wrong one tells nobody of it.
    found = evidence_of(FAN_IN, {"capital": "Rome (IT)", "tongue": "it", "writer": "capital=Rome (IT)"}, capital="Rome")
    assert (found["writer"].lost, found["writer"].made_up, found["capital"].made_up) == (0.0, 0.0, 1.0)


def test_a_field_that_is_missing_in_the_output_or_before_it():
    said = {"capital": "Rome", "tongue": "Italian", "writer": "capital=Rome"}
    found = evidence_of(FAN_IN, said, user="Italy", capital="Rome", tongue="Italian")
    assert (found["writer"].left_out, found["writer"].withheld) == (1.0, 0.0)
    # A word that stands in another field does not fill its own.
    said = {"capital": "Rome", "tongue": "Rome", "writer": "capital=Rome"}
    assert evidence_of(FAN_IN, said, user="Rome", capital="Rome", tongue="Rome")["writer"].left_out == 1.0
    said = {"capital": "Rome", "tongue": "none", "writer": "capital=Rome"}
    found = evidence_of(FAN_IN, said, user="Rome, Italian", capital="Rome", tongue="Italian")
    assert (found["writer"].left_out, found["tongue"].lost, found["writer"].lacked) == (0.0, 1.0, 1.0)
    assert found["tongue"].target == "Italian"
    found = evidence_of(FAN_IN, {**said, "writer": "capital=Rome; tongue=Greek"}, capital="Rome", tongue="Italian")
    assert found["writer"].lacked == 1.0


def test_a_value_that_was_read_and_not_passed_on_was_withheld_though_the_next_one_made_one_up():
    graph = Graph(agents=(agent("age", "user"), agent("clerk", "age"), agent("writer", "clerk")))
    said = {"age": "45", "clerk": "name=Ann", "writer": "name=Ann; age=32"}
    found = evidence_of(graph, said, user="Ann, 45", name="Ann", age="45")
    assert (found["clerk"].withheld, found["writer"].withheld, found["age"].withheld) == (1.0, 0.0, 0.0)
    assert (found["writer"].made_up, found["writer"].lacked) == (1.0, 1.0)
    assert found["age"].target is None


def test_log_odds_are_those_of_the_model_with_the_role_for_a_prompt():
    model = tiny_local_model()
    graph = Graph(agents=(agent("capital", "user"), agent("writer", "capital")))
    said = {"capital": "b", "writer": "capital=b"}
    (trace,) = run_graph(graph, {"m": model}, [{"user": "x", "expected": {"capital": "a"}}], given=[said])
    (found,) = gather_evidence([trace], graph, {"m": model}, [slot_loss(trace)])
    text = model._render("Does capital.", "user: x")
    ids = model.tokenize(text)[0]

    def log_prob(answer: str) -> float:
        tokens = model.plain_tokens(answer)
        logits = model.model(input_ids=torch.tensor([[*ids, *tokens]])).logits[0, len(ids) - 1 : -1]
        return logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).sum().item()

    assert found.nodes["capital"].log_odds == pytest.approx(log_prob("a") - log_prob("b"), abs=1e-4)
    assert found.passes == 4
    # An agent on a server is read by the local model in its place, and by none where there is none.
    (again,) = gather_evidence([trace], graph, {"m": object(), "reader": model}, [slot_loss(trace)])
    assert again.nodes["capital"].log_odds == pytest.approx(found.nodes["capital"].log_odds)
    (without,) = gather_evidence([trace], graph, {"m": object()}, [slot_loss(trace)])
    assert without.nodes["capital"].made_up == 1.0
    assert without.nodes["capital"].log_odds is None


def test_whoever_decides_is_asked_about_the_other_branch_and_authors_about_what_nobody_said():
    model = tiny_local_model()
    train = agent("train", "user", when=Condition(source="manager", pattern="train"))
    hotel = agent("hotel", "user", when=Condition(source="manager", pattern="hotel"))
    graph = Graph(agents=(agent("manager", "user"), train, hotel, agent("writer", "train", "hotel")))
    said = {"manager": "hotel", "hotel": "north", "writer": "place=southern"}
    (trace,) = run_graph(graph, {"m": model}, [{"user": "x", "expected": {"place": "Leeds"}}], given=[said])
    (found,) = gather_evidence([trace], graph, {"m": model}, [slot_loss(trace)])
    assert found.nodes["hotel"].supposed
    assert found.nodes["hotel"].target == "Leeds"
    assert found.nodes["manager"].supposed
    assert found.nodes["manager"].target == "train"
    features = found.nodes["manager"].features
    assert (features["log_odds"], features["has_target"]) == (0.0, 0.0)
    assert features["supposed_odds"] != 0.0
    assert found.nodes["hotel"].sent == pytest.approx(max(0.0, features["supposed_odds"]))


def test_what_a_node_owed_in_one_round_counts_more_than_what_it_could_have_owed_in_another():
    model = tiny_local_model()
    helper = agent("helper", "user", when=Condition(source="drafter", pattern="call"))
    drafter, critic = agent("drafter", "user", "critic"), agent("critic", "drafter", "critic")
    said = {"drafter@1": "b", "critic@1": "b", "drafter@2": "fine", "critic@2": "b", "writer": "x=b"}
    odds: list[float | None] = []
    for agents in ((drafter, critic), (drafter, critic, helper)):
        loop = Loop(body=("drafter", "critic"), times=2)
        graph = Graph(agents=(*agents, agent("writer", "critic")), loops=(loop,))
        (trace,) = run_graph(graph, {"m": model}, [{"user": "q", "expected": {"x": "a"}}], given=[said])
        (found,) = gather_evidence([trace], graph, {"m": model}, [slot_loss(trace)])
        assert (found.nodes["drafter"].target, found.nodes["drafter"].supposed) == ("a", False)
        odds.append(found.nodes["drafter"].log_odds)
    # That it could have called the helper in the second round is another matter.
    assert odds[0] is not None
    assert odds[1] == pytest.approx(odds[0], abs=1e-4)
