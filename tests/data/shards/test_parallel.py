"""The map over threads: in order, as many at a time as asked, and ended by an error."""

import threading
import time

import pytest

from framework.core.errors import ConfigError
from framework.data.shards.parallel import map_in_threads


def test_results_come_in_the_order_of_the_tasks():
    def slow_first(number: int) -> int:
        time.sleep(0.05 if number == 0 else 0)
        return number**2

    assert list(map_in_threads(slow_first, range(8), workers=4)) == [number**2 for number in range(8)]


def test_so_many_at_a_time():
    barrier = threading.Barrier(3, timeout=10)
    assert list(map_in_threads(lambda _: barrier.wait() >= 0, range(6), workers=3)) == [True] * 6


@pytest.mark.slow
def test_an_error_ends_it():
    begun = []

    def fail(number: int) -> None:
        begun.append(number)
        if number == 0:
            raise OSError("task 0")
        time.sleep(0.02)

    with pytest.raises(OSError, match="task 0"):
        list(map_in_threads(fail, range(1000), workers=1))
    assert len(begun) < 1000


def test_a_number_of_threads_that_would_take_all_of_the_memory():
    with pytest.raises(ConfigError, match=r"workers is 1000000, on \d+ CPU cores: give at most"):
        list(map_in_threads(int, ["1"], workers=1_000_000))
