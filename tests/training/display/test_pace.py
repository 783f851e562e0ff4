"""How fast training goes: without the first step, with what comes between steps."""

import pytest

from framework.training.display.pace import Pace, duration


def paced(*steps: tuple[int, float]) -> Pace:
    now = 0.0
    pace = Pace(clock=lambda: now)
    for step, seconds in steps:
        now = seconds
        pace.finish(step)
    return pace


def test_the_first_step_is_not_measured_and_micro_batches_are_no_steps():
    pace = paced((400, 60.0), (400, 61.0), (401, 62.0), (404, 68.0))
    assert (pace.num_measured, pace.seconds_measured, pace.seconds_per_step) == (4, 8.0, 2.0)
    assert pace.seconds_left(504) == 200.0
    assert pace.seconds_left(400) == 0.0


def test_what_is_not_known_is_not_said():
    assert paced().seconds_per_step is None
    assert paced((1, 5.0)).seconds_left(10) is None
    assert paced((1, 5.0), (2, 6.0)).seconds_left(-1) is None


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.4, "0 s"), (48, "48 s"), (720, "12 min"), (12_000, "3 h 20 min"), (187_200, "2 d 4 h")],
)
def test_times_for_reading(seconds: float, told: str):
    assert duration(float(seconds)) == told
