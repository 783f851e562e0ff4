"""The verbal loss by hand: expected against actual actions, and outputs that were not told."""

import json

from framework.gbc.environments.tau_bench.episode import run_episode
from framework.gbc.environments.tau_bench.losses import tau_loss
from framework.gbc.environments.tau_bench.simulators import ScriptedUser
from framework.gbc.graph.spec import Agent

AGENT = Agent(name="agent", prompt="Serve.", model="m", reads=())


def call(name: str, order: str) -> str:
    return json.dumps({"name": name, "arguments": {"order_id": order}})


def test_the_wrong_order_and_an_output_that_is_missing(shop, lines):
    model = lines(call("get_order", "3"), call("cancel_order", "1"), "That was 1,200.")
    trace = run_episode(shop, 1, ScriptedUser(), AGENT, model).trace
    loss = tau_loss(trace)
    assert loss.value == 1
    # The look-up is no error.
    assert loss.text == (
        "The database is not the one that the right actions leave. "
        'Expected cancel_order({"order_id": "2"}), it was not taken (false negative). '
        'cancel_order({"order_id": "1"}) changed the database but was not expected (false positive). '
        "The user had to be told 'two' and was not."
    )
    assert [(place.step, place.weight) for place in loss.places] == [("agent@2", 1.0), ("agent@3", 2.0)]


def test_only_an_output_is_missing(shop, lines):
    model = lines(call("cancel_order", "2"), "Two, for 1200.")
    loss = tau_loss(run_episode(shop, 1, ScriptedUser(), AGENT, model).trace)
    assert loss.text == "The user had to be told 'two' and was not."
    assert [place.step for place in loss.places] == ["agent@2"]


def test_an_action_that_was_taken_twice_was_expected_once(shop, lines):
    model = lines(call("cancel_order", "2"), call("cancel_order", "1"), "two 1200")
    loss = tau_loss(run_episode(shop, 1, ScriptedUser(), AGENT, model).trace)
    assert "false negative" not in loss.text
    assert [place.step for place in loss.places] == ["agent@2"]
