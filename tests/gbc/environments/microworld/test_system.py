"""Systems: the database by hand, and the number of workers."""

import pytest

from framework.core.errors import ConfigError
from framework.gbc.environments.microworld.system import draw_system, look_up, name_of


def test_the_database_by_hand():
    texts = {"alpha": "hotel-area n hotel-price none", "bravo": "train-area none", "charlie": ""}
    assert look_up(texts) == "hotel-name acorn train-name none"
    assert name_of("hotel", "north") == "acorn"
    assert look_up(texts, wrong={"hotel": 1}) == "hotel-name birch train-name none"


def test_the_number_of_workers():
    assert len(draw_system(3, num_workers=5).workers) == 5
    with pytest.raises(ConfigError, match="2 workers"):
        draw_system(3, num_workers=2)
