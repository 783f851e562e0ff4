"""Episodes with a known culprit."""

import pytest

from framework.gbc.environments.microworld.episodes import Remembered, draw_episodes
from framework.gbc.environments.microworld.system import MODEL
from framework.gbc.environments.microworld.tasks import answer_loss
from framework.gbc.environments.microworld.world import KINDS, make_graph
from framework.gbc.environments.prompt_repair import success_of


@pytest.mark.slow
def test_episodes_fail_because_of_their_fault(model, episodes):
    assert [episode.fault.kind for episode in episodes] == list(KINDS)
    for episode in episodes:
        assert episode.loss.value > 0
        assert success_of(make_graph(episode.system), {MODEL: model}, [episode.task], answer_loss) == 1
        assert success_of(episode.fault.graph, {MODEL: model}, [episode.task], answer_loss) == 0


@pytest.mark.slow
def test_the_same_seed_gives_the_same_episode(model):
    one, other = (draw_episodes(model, 1, seed=3, kinds=("drop",)) for _ in range(2))
    assert one[0].trace == other[0].trace


def test_answers_are_remembered(model, episodes):
    remembered = Remembered(model)
    success_of(episodes[0].fault.graph, {MODEL: remembered}, [episodes[0].task], answer_loss)
    known = dict(remembered.known)
    success_of(episodes[0].fault.graph, {MODEL: remembered}, [episodes[0].task], answer_loss)
    assert remembered.known == known
