"""Too many failures are an error; some are not."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from lightning.pytorch import Trainer

from framework.core.errors import ConfigError, TrainingError
from framework.gbc.training.failure_limit import FAILURES, FailureConfig, FailureLimit, Failures
from framework.gbc.training.rollouts import EpisodeResult


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


def test_failed_episodes_are_listed_before_the_limit_ends_training(tmp_path: Path):
    failures = Failures(FailureConfig(max_failed_share=0.5, window=4))
    limit = FailureLimit(failures)
    trainer: Any = MagicMock(spec=Trainer, default_root_dir=str(tmp_path), is_global_zero=True, global_step=3)
    failures.note_results(
        [
            EpisodeResult(sample=5, number=0, weight=1.0, id="a", failure="it broke"),
            EpisodeResult(sample=6, number=0, weight=1.0, id="b"),
        ]
    )
    limit.on_before_backward(trainer, None, None)
    failures.note_results([EpisodeResult(sample=7, number=0, weight=1.0, id="c", failure="again")])
    with pytest.raises(TrainingError, match="2 of the last 3 episodes failed"):
        limit.on_before_backward(trainer, None, None)
    lines = [json.loads(line) for line in (tmp_path / FAILURES).read_text().splitlines()]
    assert lines == [
        {"step": 3, "sample": 5, "task": "a", "reason": "it broke"},
        {"step": 3, "sample": 7, "task": "c", "reason": "again"},
    ]
