"""The shipped model, and a handful of episodes."""

import pytest

from framework.gbc.environments.microworld.episodes import draw_episodes
from framework.gbc.environments.microworld.world import load_model


@pytest.fixture(scope="session")
def model():
    return load_model()


@pytest.fixture(scope="session")
def episodes(model):
    return draw_episodes(model, 5, seed=3)
