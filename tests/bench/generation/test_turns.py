"""Ways take turns, and the round that warms up does not count."""

import time

import pytest
import torch

from framework.bench.generation.turns import take_turns, timed

CPU = torch.device("cpu")


def test_ways_take_turns_after_a_warm_up(capsys: pytest.CaptureFixture[str]):
    order: list[str] = []
    spent = take_turns({name: lambda name=name: order.append(name) for name in "ab"}, 2, CPU)
    assert order == ["a", "b"] * 3
    assert {name: len(found) for name, found in spent.items()} == {"a": 2, "b": 2}
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == [
        *["warm-up"] * 2,
        *["round 1"] * 2,
        *["round 2"] * 2,
    ]


def test_waiting_takes_no_processor_time():
    took = timed(lambda: time.sleep(0.05), CPU)
    assert took.cpu_seconds < 0.05 <= took.seconds
