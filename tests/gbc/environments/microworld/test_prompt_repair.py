"""Repair on a handful of tasks."""

import pytest

from framework.gbc.attribution.edge_weights import ConnectionOptions
from framework.gbc.attribution.results import AttributionOptions
from framework.gbc.environments.microworld.episodes import Remembered
from framework.gbc.environments.microworld.prompt_repair import draw_damages
from framework.gbc.environments.microworld.system import MODEL
from framework.gbc.environments.microworld.tasks import answer_loss
from framework.gbc.environments.prompt_repair import EVENLY, Lead, repair


@pytest.mark.slow
def test_repair_wins_back_what_was_lost(model):
    damages = draw_damages(model, 1, num_tasks=4, num_wrong=1, seed=5)
    lead = Lead(attribution=AttributionOptions(connections=ConnectionOptions(prompts=True, code=True)))
    repairs = list(repair({MODEL: Remembered(model)}, damages, answer_loss, leads={"led": lead}))
    assert [each.optimizer for each in repairs] == ["led", EVENLY]
    for each in repairs:
        assert each.won_back >= 0.95
        assert 1 <= each.evaluations <= 14
