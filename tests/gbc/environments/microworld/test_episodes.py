"""Episodes with a known culprit."""

import pytest

from framework.gbc.environments.microworld.episodes import Remembered, draw_episodes
from framework.gbc.environments.microworld.prompt_repair import success_of
from framework.gbc.environments.microworld.world import KINDS, make_graph


@pytest.mark.slow
def test_episodes_fail_because_of_their_fault(model, episodes):
    assert [episode.fault.kind for episode in episodes] == list(KINDS)
    for episode in episodes:
        assert episode.loss.value > 0
        assert success_of(make_graph(episode.system), model, [episode.task]) == 1
        assert success_of(episode.fault.graph, model, [episode.task]) == 0


@pytest.mark.slow
def test_the_same_seed_gives_the_same_episode(model):
    one, other = (draw_episodes(model, 1, seed=3, kinds=("drop",)) for _ in range(2))
    assert one[0].trace == other[0].trace


def test_answers_are_remembered(model, episodes):
    remembered = Remembered(model)
    success_of(episodes[0].fault.graph, remembered, [episodes[0].task])
    known = dict(remembered.known)
    success_of(episodes[0].fault.graph, remembered, [episodes[0].task])
    assert remembered.known == known
