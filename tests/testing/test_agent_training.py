"""A module and a trainer as `framework fit` makes them: a step on the tiny world, saved and logged."""

from pathlib import Path

import pytest

from framework.testing.agent_training import OPTIMIZER, SOFT, fit, make_module
from framework.testing.agents import make_world
from framework.tracking.metric_files import read_metrics
from framework.training.checkpoint.layout import FOLDER, list_checkpoints, name_of


@pytest.mark.slow
def test_a_step_is_made_saved_and_logged(tmp_path: Path):
    make_world(tmp_path / "world", episodes=4)
    module = make_module(tmp_path / "world", soft=SOFT, optimizer=OPTIMIZER)
    trainer = fit(tmp_path / "world", tmp_path / "run", module, steps=1)
    assert trainer.global_step == 1
    assert [path.name for path in list_checkpoints(tmp_path / "run" / FOLDER)] == [name_of(1)]
    assert read_metrics(tmp_path / "run")
