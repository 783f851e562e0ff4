"""What is spent is noted by agent, summed over processes, and bounded."""

from collections.abc import Sequence
from typing import Any

import pytest

from framework.core.errors import ConfigError, DataError, FrameworkError
from framework.gbc.execution.budget import Budget, BudgetConfig, Meter, Price, Spending
from framework.gbc.language_models.interface import Reply, Request
from framework.testing.language_models import tiny_local_model


class Counted:
    """Says what it spent, as a server does; or nothing of it; or fails."""

    def reply(self, requests: Sequence[Request]) -> list[Reply | FrameworkError]:
        return [self._reply(request) for request in requests]

    def _reply(self, request: Request) -> Reply | FrameworkError:
        if request.prompt == "fail":
            return DataError("no", hint="yes")
        usage = (300, 50) if request.prompt == "count" else None
        fields: dict[str, Any] = {
            "input_ids": (),
            "input_spans": (),
            "blocks": (),
            "output_ids": (),
            "output_spans": (),
        }
        return Reply(input_text="x" * 40, output="y" * 8, finish="stop", usage=usage, **fields)


def request(step: str, prompt: str) -> Request:
    return Request(step=step, prompt=prompt, pieces=(), max_new_tokens=2)


def test_a_servers_tokens_and_their_price():
    meter, model = Meter({"big": Price(input=2.0, output=10.0)}), Counted()
    meter.watch("big", model)
    model.reply([request("a@2", "count"), request("a", "guess"), request("b", "fail")])
    spent = meter.take()
    assert (spent["a"].calls, spent["a"].input_tokens, spent["a"].output_tokens) == (2, 310, 52)
    assert spent["a"].cost == pytest.approx((310 * 2 + 52 * 10) / 1e6)
    assert (spent["b"].calls, spent["b"].tokens, spent["b"].cost) == (1, 0, 0.0)
    assert meter.take() == {}


def test_a_local_models_tokens():
    meter, model = Meter({}), tiny_local_model()
    meter.watch("m", model)
    (reply,) = model.reply([request("a", "Hello")])
    assert isinstance(reply, Reply)
    spent = meter.take()["a"]
    assert (spent.input_tokens, spent.output_tokens) == (len(reply.input_ids), len(reply.output_ids))
    assert spent.seconds > 0


def test_bounds_count_all_processes_and_all_starts():
    budget = Budget(BudgetConfig(max_tokens=100, max_wall_seconds=50.0))
    one = {"a": Spending(calls=1, input_tokens=20, output_tokens=5), "b": Spending(calls=2, input_tokens=10)}
    budget.add([one, {"a": Spending(calls=1, input_tokens=30)}], wall_seconds=20.0)
    assert budget.total == Spending(calls=4, input_tokens=60, output_tokens=5)
    assert budget.exceeded() is None
    found = budget.metrics()
    assert (found["budget/tokens"], found["budget_step/tokens"], found["budget_tokens_by_agent/a"]) == (65, 65, 55)
    assert found["budget_seconds_by_agent/b"] == 0
    assert "budget_cost_by_agent/b" not in found
    budget.add([{"b": Spending(seconds=2.0, cost=0.5)}])
    found = budget.metrics()
    assert (found["budget_seconds_by_agent/b"], found["budget_cost_by_agent/b"]) == (2.0, 0.5)
    budget.start_step()
    again = Budget(budget.config)
    again.load_state_dict(budget.state_dict())
    again.add([{"a": Spending(input_tokens=35)}])
    assert again.exceeded() == "100 of 100 tokens"
    assert again.metrics()["budget_step/tokens"] == 35
    budget.add([], wall_seconds=30.0)
    assert budget.exceeded() == "50 of 50 seconds of training"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_calls": 0}, "budget.max_calls 0"),
        ({"max_cost": 1.0}, "max_cost 1.0 without prices"),
    ],
)
def test_bounds_that_cannot_be(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        BudgetConfig(**options)


def test_a_price_below_nothing():
    with pytest.raises(ConfigError, match="a price of -1"):
        Price(input=-1.0)
