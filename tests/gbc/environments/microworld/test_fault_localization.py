"""Every method is scored on a handful of episodes."""

import pytest

from framework.gbc.attribution.options import CounterfactualEditOptions
from framework.gbc.environments.microworld.fault_localization import (
    score_edits,
    score_gradients,
    score_leave_one_out,
    score_random,
)
from framework.gbc.environments.microworld.world import KINDS


@pytest.mark.slow
def test_every_method_is_scored_and_its_calls_are_counted(model, episodes):
    nodes = [len(episode.fault.graph.agents) + len(episode.fault.graph.tools) for episode in episodes]
    chance = score_random(episodes)
    assert chance.top1 == pytest.approx(sum(1 / count for count in nodes) / 5)
    assert chance.cost.answers == chance.cost.passes == 0
    left = score_leave_one_out(model, episodes)
    # Each agent's silence makes those after it answer again.
    workers = [len(episode.system.workers) for episode in episodes]
    tools = [len(episode.fault.graph.tools) for episode in episodes]
    assert left.cost.answers == sum(2 * w + 1 + t for w, t in zip(workers, tools, strict=True))
    scores = score_gradients(model, episodes, scalars=("finegrained",))
    scores += score_edits(model, episodes, edits={"edits": CounterfactualEditOptions()})
    assert len({score.method for score in scores}) == 4 * 2 + 2
    for score in scores:
        assert score.cost.answers == 0
        # Edits look at what each agent could have said, and then at those whose words were wrong.
        passes = sum(w + 2 for w in workers)
        assert score.cost.passes == passes if "edits" not in score.method else passes <= score.cost.passes <= 2 * passes
        assert score.top1 == pytest.approx(sum(score.hits) / 5)
        assert score.by_kind == pytest.approx(dict(zip(KINDS, score.hits, strict=True)))
