"""Too many failures are an error; some are not."""

import pytest

from framework.core.errors import ConfigError, TrainingError
from framework.gbc.training.failure_limit import FailureConfig, Failures


def test_the_share_of_recent_tasks():
    failures = Failures(FailureConfig(max_failed_share=0.5, window=8))
    failures.note("a tool raised")
    failures.check()
    failures.note("it raised again")
    with pytest.raises(TrainingError, match=r"2 of the last 2 episodes .* 0\.5 .* it raised again"):
        failures.check()
    for _ in range(2):
        failures.note(None)
    failures.check()
    for _ in range(6):
        failures.note(None)
    # The first two are forgotten, but counted.
    assert (failures.share, failures.failed, failures.seen) == (0.0, 2, 10)


def test_a_state_goes_on():
    failures, again = (Failures(FailureConfig(window=4)) for _ in range(2))
    for failure in ("x", None, "y"):
        failures.note(failure)
    again.load_state_dict(failures.state_dict())
    assert again.state_dict() == failures.state_dict()
    again.note("z")
    assert again.share == 0.75


def test_shares_that_cannot_be():
    with pytest.raises(ConfigError, match=r"max_failed_share 1\.5"):
        FailureConfig(max_failed_share=1.5)
