"""The shipped model."""

from pathlib import Path

import pytest

from framework.gbc.environments.microworld.system import MODEL
from framework.gbc.environments.microworld.tasks import answer_loss
from framework.gbc.environments.microworld.world import draw_system, load_model, make_graph, make_tasks
from framework.gbc.environments.prompt_repair import success_of


@pytest.mark.slow
def test_the_shipped_model_solves_healthy_tasks(model):
    success = [
        success_of(make_graph(system), {MODEL: model}, make_tasks(system, 5, seed=seed), answer_loss)
        for seed, system in ((seed, draw_system(1000 + seed)) for seed in range(6))
    ]
    assert sum(success) / len(success) >= 0.98


def test_the_shipped_model_is_small():
    folder = Path(load_model().config.path)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 8e6
